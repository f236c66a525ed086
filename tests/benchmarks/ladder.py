"""Loss for the time spent: the plain recipe for 2000 steps, and `modern` for a part of the same seconds, on two texts: `python -m tests.benchmarks.ladder`."""

import argparse
import ast
import sysconfig
from pathlib import Path
from pydoc_data.topics import topics

import torch

from transformer_nb import CharTokenizer, LanguageModel, TrainingConfig, TransformerConfig, train_for
from transformer_nb.training import split_text

SIZE = dict(block_size=64, n_layers=4, n_heads=4, d_model=128)
PLAIN = TrainingConfig(steps=2000, batch_size=12, learning_rate=1e-3, warmup_steps=100, device="cpu")
STEPS_OF_PLAIN = 2000


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


def ladder(
    text: str,
    seed: int,
    parts: list[float],  # of the time that the plain recipe takes
) -> list[str]:
    "Seconds of the plain recipe, its loss, and the loss of `modern` in each part of that time."
    tokenizer = CharTokenizer.from_text(text)
    ids, validation_ids = split_text(tokenizer.encode(text))

    def run(config: TransformerConfig, training: TrainingConfig, seconds: float, **options):
        torch.manual_seed(seed)
        training.seed = seed
        return train_for(LanguageModel(config), ids, training, seconds, validation_ids, **options)

    plain, ticks = TransformerConfig(tokenizer.vocab_size, **SIZE), iter(range(10**6))
    fifty = run(plain, TrainingConfig(steps=50, batch_size=12, device="cpu"), 3.0, looks=1)  # how long a step takes
    seconds = STEPS_OF_PLAIN * fifty.seconds[-1] / fifty.steps
    result = run(plain, PLAIN, STEPS_OF_PLAIN, looks=1, clock=lambda: next(ticks))
    modern = TransformerConfig.preset("modern", vocab_size=tokenizer.vocab_size, **SIZE, d_ff=490)
    recipe = TrainingConfig.preset("modern", steps=1000, batch_size=12, device="cpu")
    losses = [run(modern, recipe, part * seconds, looks=1).validation_loss[-1] for part in parts]
    return [f"{seconds:.0f} s", *(f"{loss:.3f}" for loss in (result.validation_loss[-1], *losses))]


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
