"""Loss for the time spent: the plain recipe for 2000 steps, and `modern` for a part of the same seconds, on two texts: `python -m tests.benchmarks.ladder`."""

import argparse
import ast
import sysconfig
import time
from dataclasses import replace
from pathlib import Path
from pydoc_data.topics import topics

import torch

from transformer_nb import CharTokenizer, LanguageModel, TrainingConfig, TransformerConfig, evaluate
from transformer_nb.runs.trainer import Trainer
from transformer_nb.training import make_trainer, split_text

SIZE = dict(block_size=64, n_layers=4, n_heads=4, d_model=128)
STEPS_OF_PLAIN = 2000
PLAIN = TrainingConfig(steps=STEPS_OF_PLAIN, batch_size=12, learning_rate=1e-3, warmup_steps=100, device="cpu")


def docstrings(
    length: int = 1_000_000,  # characters
) -> str:
    "The English of the standard library: its docstrings, in order of file."
    found = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if {"site-packages", "test", "tests", "idlelib"} & set(path.parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        nodes = (n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef))
        found += [said for n in nodes if (said := ast.get_docstring(n)) and said.isascii()]
    return "\n".join(found)[:length]


def train_for(
    trainer: Trainer,
    seconds: float,  # of the processor; the schedule is stretched over them
) -> int:
    "Train for a given time: half of the time is half of the schedule. Returns how many steps that were."
    used, steps = 0.0, 0
    trainer.model.train()
    while used < seconds:
        start = time.process_time()
        loss = trainer.step(int(trainer.config.steps * used / seconds))
        used, steps = used + time.process_time() - start, steps + 1
    if not loss.isfinite():
        raise FloatingPointError(f"the loss became {loss.item()} within {steps} steps: lower learning_rate")
    return steps


def ladder(
    text: str,
    seed: int,
    parts: list[float],  # of the time that the plain recipe takes
) -> list[str]:
    "Seconds of the plain recipe, its loss, and the loss of `modern` in each part of that time."
    tokenizer = CharTokenizer.from_text(text)
    ids, validation_ids = split_text(tokenizer.encode(text))

    def prepare(config: TransformerConfig, training: TrainingConfig) -> Trainer:
        torch.manual_seed(seed)
        return make_trainer(LanguageModel(config), ids, replace(training, seed=seed))

    trainer = prepare(TransformerConfig(tokenizer.vocab_size, **SIZE), PLAIN)
    start = time.process_time()
    trainer.run_steps(STEPS_OF_PLAIN)
    seconds, losses = time.process_time() - start, [evaluate(trainer.model, validation_ids)]
    modern = TransformerConfig.preset("modern", vocab_size=tokenizer.vocab_size, **SIZE, d_ff=490)
    recipe = TrainingConfig.preset("modern", steps=1000, batch_size=12, device="cpu")
    for part in parts:
        trainer = prepare(modern, recipe)
        train_for(trainer, part * seconds)
        losses.append(evaluate(trainer.model, validation_ids))
    return [f"{seconds:.0f} s", *(f"{loss:.3f}" for loss in losses)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ladder", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--parts", type=float, nargs="+", default=[0.125, 0.25, 1.0], help="of the plain recipe's time, for modern")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print("| text, seed | time of plain | plain |", *(f"modern in {part:g} of it |" for part in chosen.parts))
    print("|---" * (3 + len(chosen.parts)) + "|")
    for seed in range(chosen.seeds):
        for name, text in (("pydoc topics", "\n".join(topics.values())), ("docstrings", docstrings())):
            print("|", " | ".join([f"{name}, {seed}", *ladder(text, seed, chosen.parts)]), "|", flush=True)
