"""Outputs never lie: a page, run in a fresh kernel with one thread, gives what is committed.

Text must be the same, and numbers in it to 0.1 %; in cells tagged `trained`, whose numbers come out of a training run and
so differ a little between processors, to 10 %. Figures must be there, in their size. Cells tagged `volatile` (timings,
text that a trained model wrote) may say anything.

Compared are the pages that have changed since they were last compared, and a few of the rest; `make torture` compares all.
"""

import json
import shutil

import nbformat
import outputs
import pytest
from helpers import TORTURE
from outputs import ROOT, TOLERANCES, difference, disagreement
from sample import drawn

MOST_VOLATILE = 17
PAGES = outputs.pages()
COMPARED = PAGES if TORTURE else outputs.chosen()


@pytest.mark.parametrize("page", COMPARED)
def test_a_fresh_run_shows_what_is_committed(page):
    wrong = outputs.compare(page)
    assert not wrong, "\n".join(wrong)


def test_few_cells_are_exempt():
    cells = [cell for page in PAGES for cell in nbformat.read(ROOT / page, 4).cells]
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


# Which pages have changed.


@pytest.fixture
def copy(tmp_path):
    "A small project: two pages, of which one uses a module that uses another."
    for name in ("nbs/beyond", "transformer_nb/diagnosis", "transformer_nb/data", "tests"):
        (tmp_path / name).mkdir(parents=True)
    files = {
        "transformer_nb/__init__.py": "from .tokenization import a",
        "transformer_nb/tokenization.py": "a = 1, 'series.txt'",
        "transformer_nb/layer.py": "b = 2",
        "transformer_nb/apart.py": "c = 3",
        "transformer_nb/diagnosis/__init__.py": "from . import inner",
        "transformer_nb/diagnosis/inner.py": "def f():\n    from ..layer import b",
        "transformer_nb/data/series.txt": "prose",
        "constraints.txt": "torch==2",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content + "\n")
    write_page(tmp_path / "nbs/00_first.ipynb", "from transformer_nb.tokenization import a")
    write_page(tmp_path / "nbs/beyond/09_second.ipynb", "from transformer_nb.diagnosis import (\n    inner,\n)")
    write_page(tmp_path / "nbs/beyond/10_third.ipynb", "from transformer_nb import a")
    (tmp_path / "tests/outputs.json").write_text(json.dumps({page: outputs.digest(page, tmp_path) for page in outputs.pages(tmp_path)}))
    return tmp_path


def write_page(path, code, shown="1", prose="words"):
    cell = nbformat.v4.new_code_cell(code, outputs=[nbformat.v4.new_output("stream", text=shown)], id="c")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell, nbformat.v4.new_markdown_cell(prose, id="m")]), path)


def rewrite(name, content):
    return lambda root: (root / name).write_text(content)


FIRST, SECOND, THIRD = "nbs/00_first.ipynb", "nbs/beyond/09_second.ipynb", "nbs/beyond/10_third.ipynb"


@pytest.mark.parametrize("change, expected", [
    (lambda root: None, []),
    (lambda root: write_page(root / FIRST, "from transformer_nb.tokenization import a", prose="other words"), []),
    (lambda root: write_page(root / FIRST, "from transformer_nb.tokenization import a  # code"), [FIRST]),
    (lambda root: write_page(root / FIRST, "from transformer_nb.tokenization import a", shown="2"), [FIRST]),
    (rewrite("transformer_nb/tokenization.py", "a = 2, 'series.txt'\n"), [FIRST, THIRD]),
    (rewrite("transformer_nb/tokenization.py", "# said in other words\na = 1, 'series.txt'\n"), []),
    (rewrite("transformer_nb/data/series.txt", "other prose"), [FIRST, THIRD]),
    (rewrite("transformer_nb/diagnosis/__init__.py", "from . import inner  # changed\n"), [SECOND, THIRD]),
    (rewrite("transformer_nb/diagnosis/inner.py", "def f():\n    from ..layer import b as c\n"), [SECOND, THIRD]),
    (rewrite("transformer_nb/layer.py", "b = 3\n"), [SECOND, THIRD]),
    (rewrite("transformer_nb/apart.py", "c = 4\n"), [THIRD]),
    (rewrite("transformer_nb/_modidx.py", "d = {}\n"), []),
    (rewrite("constraints.txt", "torch==3"), [FIRST, SECOND, THIRD]),
    (lambda root: shutil.move(root / FIRST, root / "nbs/beyond/00_first.ipynb"), ["nbs/beyond/00_first.ipynb"]),
    (lambda root: (root / "tests/outputs.json").unlink(), [FIRST, SECOND, THIRD]),
])
def test_a_page_has_changed_when_its_code_its_outputs_or_a_module_it_uses_has(copy, change, expected):
    change(copy)
    assert outputs.changed(copy) == expected


def test_the_modules_of_a_page_are_found():
    assert outputs.used("from transformer_nb.layer_norm import LayerNorm") == ["transformer_nb.layer_norm"]
    training = outputs.used("from transformer_nb.training import (\n    train,\n)")
    assert {f"transformer_nb.{name}" for name in ("training", "transformer", "attention", "tokenization", "runs.checkpoints")} <= set(training)
    assert "transformer_nb.notebook.plotting" not in training
    assert outputs.used("from transformer_nb import train") == sorted(outputs.modules())
    assert outputs.used('run([sys.executable, "-m", "transformer_nb"])') == sorted(outputs.modules())
    assert outputs.used("import torch") == []


def test_the_sample_of_the_rest_is_drawn_by_the_commit(monkeypatch):
    samples = set()
    for commit in map(str, range(500)):
        monkeypatch.setattr("sample.commit", lambda commit=commit: commit)
        samples.add(tuple(drawn(PAGES, 2)))
        assert drawn(PAGES, 2) == drawn(PAGES, 2) and drawn(PAGES, 1000) == PAGES and drawn([], 2) == []
    assert len(samples) > 25 and {page for sample in samples for page in sample} == set(PAGES)
