"""Ours against every peer that is installed, taking turns, each in a process of its own: `make bench`, or `python -m tests.benchmarks`."""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

from .contenders import CONTENDERS, check_sizes
from .report import figure, summary, table
from .worker import Worker

CELLS = (("S", "float32"), ("M", "float32"), ("M", "bf16"))  # that are trained
LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)  # of the windows for attention
KINDS = ("train", "generate", "memory", "attention")


def options() -> argparse.Namespace:
    "What the command line says."
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.partition(":")[0])
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, metavar="KIND", help="some of " + ", ".join(KINDS))
    parser.add_argument("--sizes", nargs="+", choices=("S", "M"), default=("S", "M"))
    parser.add_argument("--rounds", type=int, default=6, help="turns of each contender: A B, B A, A B, ...")
    parser.add_argument("--seconds", type=float, default=2.0, help="that a turn takes, at least")
    parser.add_argument("--threads", type=int, default=2, help="of each process")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="where table, figure and raw numbers go")
    parser.add_argument("--quick", action="store_true", help="only see that all of it works: size S, one short round")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.sizes, chosen.rounds, chosen.seconds = ("S",), 1, 0.01
    return chosen


def circumstances(chosen: argparse.Namespace) -> str:
    "The machine, and what runs on it."
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    cpu = cpu.partition("model name\t: ")[2].partition("\n")[0] or platform.processor()
    packages = [p for p in ("torch", "transformers", "x-transformers", "litgpt") if importlib.util.find_spec(p.replace("-", "_"))]
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in packages)
    return f"{cpu}, {chosen.threads} threads; {versions}; {chosen.rounds} rounds."


class Bench:
    "The contenders at work, and what was measured so far."

    def __init__(self, chosen: argparse.Namespace):
        self.chosen = chosen
        self.results = {"about": circumstances(chosen), "rounds": {}, "same tokens": {}, "left out": []}
        self.workers = {"machine": Worker("machine")}
        for name, contender in CONTENDERS.items():
            if importlib.util.find_spec(contender.package):
                self.workers[name] = Worker(name)
            else:
                self.leave_out(name, "is not installed")

    def leave_out(self, name: str, why: str) -> None:
        "Go on without a peer, and say so; without ours there is nothing to go on with."
        if name == "ours":
            raise SystemExit(f"ours {why}")
        self.results["left out"].append(f"{name} {why}")
        print(f"left out: {name} {why}", flush=True)

    def ask(self, names: list[str], *question, fresh: bool = False) -> dict:
        "The answers of the contenders, one after the other, each in its process or in a fresh one; who fails is left out."
        answers = {}
        for name in names:
            worker = Worker(name) if fresh else self.workers[name]
            try:
                answers[name] = worker.ask(*question)
            except RuntimeError as error:
                self.leave_out(name, f"failed to {question[0]}: {str(error).strip().splitlines()[-1]}")
            if fresh:
                worker.close()
        return answers

    def turns(self, what: str, names: list[str], *question, rounds: int | None = None, fresh: bool = False) -> None:
        "The same question in each round, the next round the other way round."
        found = {name: [] for name in names}
        for number in range(rounds or self.chosen.rounds):
            answers = self.ask(list(found)[:: -1 if number % 2 else 1], *question, fresh=fresh)
            found = {name: [*values, answers[name]] for name, values in found.items() if name in answers}
        self.results["rounds"][what] = found
        print(summary(what, found), flush=True)

    def load(self, *question) -> list[str]:
        "Have all make their models anew; who could."
        counts = self.ask(list(self.workers), "load", *question)
        check_sizes({name: count for name, count in counts.items() if name != "machine"})
        return list(counts)

    def cells(self) -> list[tuple[str, str]]:
        "Sizes and precisions to train."
        return [cell for cell in CELLS if cell[0] in self.chosen.sizes]

    def train(self) -> None:
        for cell in self.cells():
            self.turns(f"training step, {', '.join(cell)}", self.load(*cell), "train", self.chosen.seconds)

    def generate(self) -> None:
        for size in self.chosen.sizes:
            names = self.load(size, "float32", True)
            with_cache = [name for name in names if name != "machine" and CONTENDERS[name].has_cache]
            self.results["same tokens"][size] = same = self.ask(with_cache, "same_tokens")
            self.turns(f"a token with cache, {size}", ["machine", *same], "generate", True, self.chosen.seconds)
            self.turns(f"a token without cache, {size}", names, "generate", False, self.chosen.seconds)

    def memory(self) -> None:
        names, rounds = [name for name in self.workers if name != "machine"], min(self.chosen.rounds, 3)
        for cell in self.cells():
            self.turns(f"peak memory, {', '.join(cell)}", names, "training_memory", *cell, rounds=rounds, fresh=True)

    def attention(self) -> None:
        for length in (64, 512) if self.chosen.quick else LENGTHS:
            names = ["ours", "head by head"]
            self.turns(f"attention time, {length}", names, "attention", length, min(self.chosen.seconds, 0.5))
            self.turns(f"attention memory, {length}", names, "attention_memory", length, rounds=1, fresh=True)

    def write(self) -> None:
        "The table, the figure and the raw numbers, as far as they go."
        self.chosen.out.mkdir(parents=True, exist_ok=True)
        (self.chosen.out / "results.json").write_text(json.dumps(self.results, indent=1) + "\n", encoding="utf-8")
        (self.chosen.out / "results.md").write_text(table(self.results), encoding="utf-8")
        figure(self.results, self.chosen.out / "results.png")


if __name__ == "__main__":
    chosen = options()
    os.environ |= {"OMP_NUM_THREADS": str(chosen.threads), "HF_HUB_OFFLINE": "1"}  # for the processes to come
    bench = Bench(chosen)
    for kind in chosen.only:
        getattr(bench, kind)()
        bench.write()
    print(f"\n{table(bench.results)}\n{chosen.out / 'results.md'}, results.png, results.json")
