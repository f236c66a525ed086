"""Outputs never lie: every notebook, run in a fresh kernel with one thread, gives what is committed.

Text must be the same, and numbers in it to 0.1 %; in cells tagged `trained`, whose numbers come out of a training run and
so differ a little between processors, to 10 %. Figures must be there, in their size. Cells tagged `volatile` (timings,
text that a trained model wrote) may say anything.
"""

import os
import re
import struct
import subprocess
import sys
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "nbs").glob("*.ipynb"))
NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d+)?|\bnan\b|\binf\b", re.IGNORECASE)
TOLERANCES = {"trained": (0.1, 0.03), None: (1e-3, 1e-6)}  # relative and absolute
MOST_VOLATILE = 17


def contents(cell):
    "What a cell shows: (kind, content) in order, neighbouring texts of a stream joined."
    shown = []
    for output in cell.get("outputs", []):
        if output.output_type == "stream":
            if shown and shown[-1][0] == output.name:
                shown[-1] = (output.name, shown[-1][1] + output.text)
            else:
                shown.append((output.name, output.text))
        else:
            shown += sorted(output.get("data", {}).items())
    return shown


def picture_size(png):
    "Width and height, from the head of a PNG file."
    return struct.unpack(">II", b64decode(png)[16:24])


def difference(committed, fresh, tolerance):
    "What differs between two texts, or None: words exactly, numbers within the tolerance."
    (words, numbers), (fresh_words, fresh_numbers) = ((NUMBER.split(t), NUMBER.findall(t)) for t in (committed, fresh))
    if [w.split() for w in words] != [w.split() for w in fresh_words]:
        return f"the text {committed[:300]!r} has become {fresh[:300]!r}"
    relative, absolute = tolerance
    for old, new in zip(numbers, fresh_numbers, strict=True):
        a, b = (float(number.replace(",", "").rstrip(".") or 0) for number in (old, new))
        if a != b and not abs(a - b) <= absolute + relative * max(abs(a), abs(b)) and not (a != a and b != b):
            return f"{old} has become {new} in {fresh[:300]!r}"
    return None


def disagreement(committed, fresh):
    "What differs between the outputs of two runs of a cell, or None."
    tags = committed.metadata.get("tags", [])
    if "volatile" in tags:
        return None
    before, after = contents(committed), contents(fresh)
    if [kind for kind, _ in before] != [kind for kind, _ in after]:
        return f"it showed {[kind for kind, _ in before]} and shows {[kind for kind, _ in after]}"
    tolerance = TOLERANCES["trained" if "trained" in tags else None]
    for (kind, old), (_, new) in zip(before, after):
        if kind == "image/png":
            sizes = picture_size(old), picture_size(new)
            wrong = any(abs(a - b) > 0.05 * a for a, b in zip(*sizes))
            found = f"a figure of {sizes[0]} has become one of {sizes[1]}" if wrong else None
        else:
            found = difference("".join(old), "".join(new), tolerance)
        if found:
            return found
    return None


def run(path, folder):
    "The notebook, run from top to bottom in a kernel of its own, with one thread: the order of a sum depends on it."
    command = Path(sys.executable).with_name("jupyter-nbconvert")
    options = ["--execute", "--to=notebook", f"--output-dir={folder}", "--ExecutePreprocessor.timeout=900"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([command, *options, path], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return nbformat.read(folder / path.name, 4)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    "All notebooks, run two at a time, the longest first."
    folder = tmp_path_factory.mktemp("runs")
    with ThreadPoolExecutor(2) as pool:
        yield {path: pool.submit(run, path, folder) for path in sorted(NOTEBOOKS, reverse=True)}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_fresh_run_shows_what_is_committed(path, runs):
    committed, fresh = nbformat.read(path, 4), runs[path].result()
    wrong = [
        f"cell {i} ({cell.source.splitlines()[0][:60]}): {found}"
        for i, (cell, again) in enumerate(zip(committed.cells, fresh.cells, strict=True))
        if cell.cell_type == "code" and (found := disagreement(cell, again))
    ]
    assert not wrong, "\n".join(wrong)


def test_few_cells_are_exempt():
    cells = [cell for path in NOTEBOOKS for cell in nbformat.read(path, 4).cells]
    assert sum("volatile" in cell.metadata.get("tags", []) for cell in cells) <= MOST_VOLATILE


@pytest.mark.parametrize(
    "old, new, same",
    [
        ("loss 1.000", "loss 1.0005", True),
        ("loss 1.000", "loss 1.002", False),
        ("loss 1.0", "Loss 1.0", False),
        ("tensor([0.10, 2.00])", "tensor([ 0.10,  2.00])", True),
        ("tensor([0.1, 2.0])", "tensor([0.1, 2.0, 3.0])", False),
        ("nan", "nan", True),
        ("nan", "1.0", False),
        ("12,345 tokens", "12,345 tokens", True),
        ("12,345 tokens", "12,445 tokens", False),
        ("-0.50", "0.50", False),
    ],
)
def test_words_are_compared_exactly_and_numbers_nearly(old, new, same):
    assert (difference(old, new, TOLERANCES[None]) is None) == same


def test_a_changed_output_is_seen_unless_it_may_change():
    def cell(text, *tags):
        output = nbformat.v4.new_output("stream", text=text)
        return nbformat.v4.new_code_cell("x", outputs=[output], metadata={"tags": list(tags)})

    assert disagreement(cell("loss 2.00"), cell("loss 2.10"))
    assert not disagreement(cell("loss 2.00", "trained"), cell("loss 2.10"))
    assert disagreement(cell("loss 2.00", "trained"), cell("loss 3.00"))
    assert not disagreement(cell("2 s", "volatile"), cell("3 seconds"))
    assert disagreement(cell("2"), nbformat.v4.new_code_cell("x"))
