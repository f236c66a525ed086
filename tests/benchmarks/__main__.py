"""Ours against every peer that is installed, taking turns, each in a process of its own: `make bench`, or `python -m tests.benchmarks`."""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

CELLS = (("S", "float32"), ("M", "float32"), ("M", "bf16"))  # that are trained
LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)  # of the windows for attention


def options() -> argparse.Namespace:
    "What the command line says."
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.partition(":")[0])
    kinds = ("train", "generate", "memory", "attention")
    parser.add_argument("--only", nargs="+", choices=kinds, default=kinds, metavar="KIND", help="some of " + ", ".join(kinds))
    parser.add_argument("--sizes", nargs="+", choices=("S", "M"), default=("S", "M"))
    parser.add_argument("--rounds", type=int, default=6, help="turns of each contender: A B, B A, A B, ...")
    parser.add_argument("--seconds", type=float, default=2.0, help="that a turn takes, at least")
    parser.add_argument("--threads", type=int, default=2, help="of each process")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="where table, figure and raw numbers go")
    parser.add_argument("--quick", action="store_true", help="only see that all of it works: size S, two short rounds")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.sizes, chosen.rounds, chosen.seconds = ("S",), 2, 0.05
    return chosen


class Bench:
    "The contenders at work, and what was measured so far."

    def __init__(self, chosen: argparse.Namespace):
        from .contenders import CONTENDERS
        from .worker import Worker

        self.chosen, self.make = chosen, Worker
        self.results = {"about": about(chosen), "rounds": {}, "same tokens": {}, "left out": []}
        self.workers = {}
        for name, contender in CONTENDERS.items():
            if importlib.util.find_spec(contender.package) is None:
                self.leave_out(name, "is not installed")
            else:
                self.workers[name] = Worker(name)
        self.machine = Worker("machine")

    def leave_out(self, name: str, why: str) -> None:
        "Say so, once."
        self.results["left out"].append(f"{name} {why}")
        print(f"left out: {name} {why}", flush=True)

    def all_but_failed(self, names: list[str], ask: Callable[[str], object]) -> dict:
        "The answers of those who can give one; who cannot is left out with the last line of the error."
        answers = {}
        for name in names:
            try:
                answers[name] = ask(name)
            except RuntimeError as error:
                if name == "ours":
                    raise
                self.leave_out(name, f"failed: {str(error).strip().splitlines()[-1]}")
        return answers

    def turns(self, what: str, names: list[str], ask: Callable[[str], float], rounds: int) -> None:
        "Each contender once in each round, the next round the other way round."
        found = {name: [] for name in names}
        for number in range(rounds):
            order = [name for name in names if name in found]
            answers = self.all_but_failed(order[:: 1 if number % 2 == 0 else -1], ask)
            found = {name: [*found[name], answers[name]] for name in order if name in answers}
        self.results["rounds"][what] = found
        self.write(what)

    def write(self, what: str) -> None:
        "The table, the figure and the raw numbers, as far as they go; a line to those who wait."
        from .report import figure, summary, table

        self.chosen.out.mkdir(parents=True, exist_ok=True)
        (self.chosen.out / "results.json").write_text(json.dumps(self.results, indent=1) + "\n", encoding="utf-8")
        (self.chosen.out / "results.md").write_text(table(self.results), encoding="utf-8")
        figure(self.results, self.chosen.out / "results.png")
        print(summary(what, self.results), flush=True)

    def load(self, *arguments) -> list[str]:
        "Have all make their models anew; who could."
        from .contenders import check_sizes

        counts = self.all_but_failed(list(self.workers), lambda name: self.workers[name].ask("load", *arguments))
        check_sizes(counts)
        self.machine.ask("load", *arguments)
        self.workers = {name: self.workers[name] for name in counts}
        return list(counts)

    def ask(self, *question) -> Callable[[str], object]:
        "A function that asks the contender of a name, or the machine."
        return lambda name: (self.machine if name == "machine" else self.workers[name]).ask(*question)

    def fresh(self, *question) -> Callable[[str], object]:
        "The same, in a process that has done nothing before."

        def ask(name: str) -> object:
            worker = self.make(name)
            try:
                return worker.ask(*question)
            finally:
                worker.close()

        return ask

    def train(self) -> None:
        for size, precision in self.cells():
            names = self.load(size, precision)
            self.turns(f"training step, {size}, {precision}", [*names, "machine"], self.ask("train", self.chosen.seconds), self.chosen.rounds)

    def generate(self) -> None:
        for size in self.chosen.sizes:
            names = self.load(size, "float32", True)
            cached = [name for name in names if self.has_cache(name)]
            same = self.all_but_failed(cached, self.ask("same_tokens"))
            self.results["same tokens"][f"a token with cache, {size}"] = same
            for use_cache, players in ((True, list(same)), (False, names)):
                what = f"a token {'with' if use_cache else 'without'} cache, {size}"
                self.turns(what, [*players, "machine"], self.ask("generate", use_cache, self.chosen.seconds), self.chosen.rounds)

    def memory(self) -> None:
        for size, precision in self.cells():
            ask = self.fresh("training_memory", size, precision)
            self.turns(f"peak memory, {size}, {precision}", list(self.workers), ask, min(self.chosen.rounds, 2))

    def attention(self) -> None:
        names = ["ours", "head by head"]
        for length in LENGTHS[::3] if self.chosen.quick else LENGTHS:
            ask = self.ask("attention", length, min(self.chosen.seconds, 0.5))
            self.turns(f"attention time, {length}", names, ask, self.chosen.rounds)
            self.turns(f"attention memory, {length}", names, self.fresh("attention_memory", length), 1)

    def cells(self) -> list[tuple[str, str]]:
        "Sizes and precisions to train."
        return [cell for cell in CELLS if cell[0] in self.chosen.sizes]

    @staticmethod
    def has_cache(name: str) -> bool:
        "Whether a contender keeps keys and values."
        from .contenders import CONTENDERS

        return CONTENDERS[name].has_cache


def about(chosen: argparse.Namespace) -> str:
    "The circumstances."
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")] if Path("/proc/cpuinfo").exists() else []
    cpu = model[0].partition(": ")[2] if model else platform.processor()
    versions = [f"{p} {importlib.metadata.version(p)}" for p in ("torch", "transformers", "x-transformers", "litgpt") if importlib.util.find_spec(p.replace("-", "_"))]
    return f"{cpu}, {chosen.threads} threads; {', '.join(versions)}; {chosen.rounds} rounds."


if __name__ == "__main__":
    chosen = options()
    os.environ |= {"OMP_NUM_THREADS": str(chosen.threads), "HF_HUB_OFFLINE": "1"}  # before torch is imported, here and in each process
    bench = Bench(chosen)
    for kind in chosen.only:
        getattr(bench, kind)()
    print((chosen.out / "results.md").read_text(encoding="utf-8"))
