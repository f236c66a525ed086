"Notebooks are clean, modules are what the notebooks export, pages keep the form of the series, and the package stands alone."

import ast
import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import corpus
import form
import outputs as outputs_module
import pytest
import reading
import torch
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import transformer_nb
from transformer_nb.notebook.map import CHAPTERS

ROOT = Path(__file__).parents[1]
NBS = ROOT / "nbs"
NOTEBOOKS = sorted(p for p in NBS.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
PAGES = sorted((p for p in NOTEBOOKS if p.stem[0].isdigit()), key=lambda p: p.stem)
CHAPTERS_OF_THE_WALK = [path for path in PAGES if path.parent == NBS]
WORKSHOP = [path for path in NOTEBOOKS if path.parent.name == "workshop"]
LIBRARY = ROOT / "transformer_nb"
MODULES = sorted(p for p in LIBRARY.rglob("*.py") if p.stem != "_modidx")
SIDE_BY_SIDE = dict(argvalues=NOTEBOOKS, ids=lambda p: p.stem)


def cells(path, kind):
    "The sources of a notebook's cells of a kind."
    found = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == kind]
    return ["".join(c["source"]) for c in found]


def module_of(path):
    "The module that a notebook exports, or an empty text."
    first = cells(path, "code")[0]
    return first.removeprefix("#| default_exp ") if first.startswith("#| default_exp ") else ""


def outputs(path):
    "All outputs of a notebook's cells."
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [o for c in notebook["cells"] for o in c.get("outputs", [])]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    "A copy of the project in which nbdev's commands may write."
    folder = tmp_path_factory.mktemp("copy")
    for name in ("nbs", "transformer_nb"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for name in ("settings.ini", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def run(command, folder):
    "One of nbdev's commands, from the environment that runs the tests."
    subprocess.run([Path(sys.executable).with_name(command)], cwd=folder, check=True, capture_output=True)


def test_notebooks_are_clean(copy):
    run("nbdev_clean", copy)
    dirty = [p.name for p in NOTEBOOKS if p.read_bytes() != (copy / p.relative_to(ROOT)).read_bytes()]
    assert not dirty, f"run nbdev_clean: {dirty}"


def test_modules_are_what_the_notebooks_export(copy):
    def modules(root):
        return {p.relative_to(root).as_posix(): p.read_bytes() for p in (root / "transformer_nb").rglob("*.py")}

    before = modules(ROOT)
    for name in before:
        if not name.endswith("__init__.py"):
            (copy / name).unlink()
    run("nbdev_export", copy)
    after = modules(copy)
    assert before.keys() == after.keys()
    assert not [name for name in before if before[name] != after[name]], "run nbdev_export"


@pytest.mark.parametrize("path", **SIDE_BY_SIDE)
def test_a_page_is_committed_as_it_ran(path):
    shown, metadata = outputs(path), json.loads(path.read_text(encoding="utf-8"))["metadata"]
    assert metadata.keys() == {"kernelspec"}, "the state of a live view is committed: make outputs takes it out"
    assert shown, "a page without outputs: run it"
    assert not [o for o in shown if o["output_type"] == "error"]
    assert not [o for o in shown if o.get("name") == "stderr"], "a warning is shown to the reader"
    assert not [o for o in shown if outputs_module.WIDGET in o.get("data", {})], "a live view is committed: make outputs takes it out"
    pictures = [o for o in shown if "image/png" in o.get("data", {})]
    assert all(o["metadata"].get("image/png", {}).get("alt") for o in pictures), "a figure without alternative text: describe it"
    assert path.stat().st_size < 1_000_000


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_a_page_keeps_the_form_of_the_series(path):
    prose, code = cells(path, "markdown"), cells(path, "code")
    assert re.match(r"# .+\n> .+$", prose[0]), "a page opens with its title and one line"
    assert "**" in prose[1] and "?" in prose[1], "then comes its question"
    assert module_of(path) or path not in CHAPTERS_OF_THE_WALK, "its first code cell names the module: #| default_exp"
    lit = f'"{module_of(path)}"' if module_of(path) in CHAPTERS else ""
    setup = next(cell for cell in code if not cell.startswith("#| "))
    assert f"transformer_map({lit})" in setup, "its box is lit before anything else"
    headings = [cell for cell in prose if cell.startswith("## ")]
    assert "## Summary" in headings and headings[-1] == "## Exercises"
    assert all("\n" not in heading for heading in headings), "a heading has its cell for itself"
    assert any("image/png" in o.get("data", {}) for o in outputs(path)), "a figure shows what numbers cannot"


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_exported_names_have_a_docstring_and_a_check_close_by(path):
    code = cells(path, "code")
    for i, cell in enumerate(code):
        if not cell.startswith("#| export"):
            continue
        following = "\n".join(code[i + 1 : i + 9])
        for node in ast.parse(cell).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{node.name} has no docstring"
        assert "assert" in following or "except" in following, f"nothing checks cell {i}"


@pytest.mark.parametrize("path", **SIDE_BY_SIDE)
def test_no_cell_is_switched_off_or_too_long(path):
    for cell in filter(lambda cell: cell["cell_type"] == "code", reading.cells_of(path)):
        assert "eval: false" not in cell["source"]
        most = 60 if reading.is_hidden(cell) else 30
        assert cell["source"].startswith("#| export") or len(cell["source"].splitlines()) <= most, cell["source"][:80]


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_a_page_has_a_first_reading_and_folded_sections(path):
    faults = form.faults(path)
    assert not faults, "\n".join(faults)


def cell(source, kind="code", **metadata):
    "A cell of a notebook."
    return {"cell_type": kind, "metadata": metadata, "source": source, "outputs": []}


def heading(source, **metadata):
    return cell(source, "markdown", **metadata)


def small_page():
    "A page of the right form, as short as can be."
    hidden, folded = {"jupyter": {"source_hidden": True}}, {reading.FOLDED: True}
    return [
        heading("# Title\n> A line."),
        cell("# Set-up of this page\nimport math", **hidden),
        heading("## An idea"),
        cell('guess = ""  # type a, b or c between the quotes'),
        cell("x = math.sqrt(4)\nassert x == 2"),
        heading("## Summary"),
        cell("**The idea.** One. Two. Three.", "markdown"),
        cell("**Shapes.**\n\n| what | shape |\n|---|---|\n| `x` | (T,) |", "markdown"),
        cell("**When it goes wrong.**\n\n| symptom | cause | test |\n|---|---|---|\n| a | b | c |", "markdown"),
        cell("**Interview questions.**\n\n- *Why?* Because.", "markdown"),
        heading("## Going further"),
        cell("Each section stands alone.", "markdown"),
        heading("## What a square is", **folded),
        cell("square = x * x\n[square for y in range(3)]"),
        heading("## Exercises"),
        cell("def double(number):\n    square = 2 * number\n    return square", tags=["stub"]),
        cell("[Index](index.ipynb)", "markdown"),
    ]


BREAKS = {  # the cell that contains this text -> what becomes of it, and what is said about it
    "## An idea": ({"metadata": {reading.FOLDED: True}}, "folded: ## An idea"),
    "## What a square is": ({"metadata": {}}, "not folded: ## What a square is"),
    "## Summary": ({"source": "## What we hold"}, "not there, or not once, in a cell of its own: ## Summary"),
    "## Going further": ({"source": "## Going on"}, "Going further"),
    "stands alone": ({"source": "## A heading"}, "one sentence, in one cell"),
    "**The idea.**": ({"source": "The idea."}, "the cells of the Summary begin with"),
    "**Shapes.**": ({"source": "**Shapes.** (T,)"}, "the shapes are a table"),
    "symptom": ({"source": "**When it goes wrong.**\n\n| cause | test |\n|---|---|"}, "symptom, cause, test"),
    "**Interview questions.**": ({"source": "**Interview questions.** Why?"}, "are a list"),
    "# Set-up": ({"source": "import math"}, "no comment of three words"),
    "guess": ({"source": "guess = 1"}, "asks for a guess in another way"),
    "x = math": ({"source": "x = 2\nassert x\nassert x == 2"}, "2 assertions, more than one"),
    "assert x": ({"source": "x = 2\n" * 21}, "21 lines, more than 20"),
    "sqrt": ({"source": "#| export\n" + "x = 2\n" * 46}, "46 lines, more than 45"),
    "import math": ({"source": "# Set-up of this page\nimport math", "metadata": {}}, ""),
    "def double": ({"source": "square"}, "uses what only a folded section defines: square"),
    "> A line.": ({"source": "# Title\n> A line." + " word" * 27 * 200}, "the first reading takes 27 minutes"),
}


@pytest.mark.parametrize("text", ["", *BREAKS])
def test_each_fault_of_the_form_is_found(text, tmp_path):
    page, (change, says) = small_page(), BREAKS.get(text, ({}, ""))
    (page[0] if not text else next(c for c in page if text in c["source"])).update(change)
    (tmp_path / "page.ipynb").write_text(json.dumps({"cells": page}))
    found = "\n".join(form.faults(tmp_path / "page.ipynb"))
    assert says in found and bool(says) == bool(found)


def test_a_first_reading_leaves_out_what_is_folded_and_the_exercises():
    assert [c["source"] for c, part in zip(small_page(), reading.parts(small_page())) if part == "folded"] == ["square = x * x\n[square for y in range(3)]"]
    assert reading.parts(small_page())[-3:] == ["exercises"] * 3
    assert reading.minutes(cell("one `two` $3$ [four](five.ipynb) six", "markdown")) == 3 / 200
    assert reading.minutes(cell("x = 1\n\n%time y = 2")) == 2 / 20 and reading.minutes(small_page()[1]) == 0
    assert reading.minutes({**cell("x"), "outputs": [{"data": {"image/png": ""}}]}) == 1 / 20 + 1 / 2


def minutes_said(path):
    "The minutes that the index gives for a page: for a first reading and for everything, or for all of it as one number."
    row = re.search(rf"^\| \[[^]]*\]\({path.relative_to(NBS)}\).*$", "\n".join(cells(NBS / "index.ipynb", "markdown")), re.MULTILINE)
    assert row, f"nbs/index.ipynb has no row for this page: | [{title_of(path)}]({path.relative_to(NBS)}) | question | ... |"
    return [int(number) for number in re.findall(r"\| (\d+) min (?=\|)", row[0])]


def title_of(path):
    "How other pages name a page: 03 Attention."
    return f"{path.stem[:2]} {cells(path, 'markdown')[0].splitlines()[0].removeprefix('# ')}"


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_the_index_says_how_long_a_page_takes_to_read(path):
    said, takes = minutes_said(path), [reading.first_reading(path), reading.whole(path)]
    assert len(said) == 2, "two columns: the minutes of a first reading, and of everything"
    assert all(abs(a - b) < 3 for a, b in zip(said, takes)), f"about {' and '.join(f'{t:.0f}' for t in takes)} minutes, not {said}"


@pytest.mark.parametrize("path", WORKSHOP, ids=lambda p: p.stem)
def test_a_page_of_the_workshop_is_short_and_the_index_says_what_it_does(path):
    assert reading.first_reading(path) < 12.5, "more than 12 minutes: fold what is not needed first"
    title, line = cells(path, "markdown")[0].splitlines()[:2]
    module = f" `{module_of(path)}` " if module_of(path) else " "
    row = f"| [{title.removeprefix('# ')}](workshop/{path.name}) |{module}| {line.removeprefix('> ')} |"
    assert row in "\n".join(cells(NBS / "index.ipynb", "markdown")).splitlines(), f"nbs/index.ipynb has no such row: {row}"


def test_the_readme_has_the_rows_of_the_index():
    index, readme = "\n".join(cells(NBS / "index.ipynb", "markdown")), (ROOT / "README.md").read_text(encoding="utf-8")
    for path in PAGES:
        name = path.relative_to(NBS).as_posix()
        (line,) = re.findall(rf"^\| (\[.*\]\({name}\).*) \|$", index, re.MULTILINE)
        link, question, _, first, everything, _ = map(str.strip, line.split("|"))
        row = f"| {link.replace(name, f'nbs/{name}')} | {question} | {first} | {everything} |"
        assert row in readme.splitlines(), f"README.md has no such row: {row}"


@pytest.mark.parametrize("document", [NBS / "index.ipynb", ROOT / "README.md"], ids=lambda p: p.stem)
def test_the_routes_take_as_long_as_they_say(document):
    text = "\n".join(cells(document, "markdown")) if document.suffix == ".ipynb" else document.read_text(encoding="utf-8")
    route = dict(re.findall(r"^\| (20 minutes|an evening|a week) \| (.*) \|$", text, re.MULTILINE))
    assert len(route) == 3
    for name, row in route.items():
        pages = [document.parent / page for page in re.findall(r"\]\(([\w./-]+\.ipynb)\)", row)] or CHAPTERS_OF_THE_WALK
        if stop := re.search(r"as far as \*(.+?)\*", row):
            (page,) = pages
            found = reading.cells_of(page)
            headings = [cell["source"] for cell in found]
            assert f"## {stop[1]}" in headings, f"{name}: {page.name} has no heading {stop[1]!r} any more, and {document.name} names it"
            takes = sum(map(reading.minutes, found[: headings.index(f"## {stop[1]}")]))
        else:
            takes = sum(map(reading.whole if name == "a week" else reading.first_reading, pages))
        said = int(re.search(r"\| (\d+)$", row)[1])
        assert abs(said - takes) < 3 * len(pages), f"{name}: about {takes:.0f} minutes"


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_a_page_leads_to_its_neighbours(path):
    last, place = cells(path, "markdown")[-1], PAGES.index(path)
    before, after = PAGES[max(place - 1, 0) : place], PAGES[place + 1 : place + 2]
    wanted = [*before, NBS / "index.ipynb", *after]
    line = " · ".join([*(f"[← {title_of(p)}]" for p in before), "[Index]", *(f"[{title_of(p)} →]" for p in after)])
    assert links_of(path, last)[-len(wanted) :] == wanted, f"the last line of {path.name} leads to its neighbours: {line}"
    assert all(title_of(p) in last for p in before + after), f"the last line of {path.name} gives the titles of its neighbours: {line}"


def links_of(path, text):
    "The pages that a text in a notebook links to, where they must lie."
    return [(path.parent / target).resolve() for target in re.findall(r"\]\(([\w./-]+\.ipynb)[#)]", text)]


@pytest.mark.parametrize("path", **SIDE_BY_SIDE)
def test_links_lead_to_pages_that_exist(path):
    for target in links_of(path, "\n".join(cells(path, "markdown"))):
        assert target in NOTEBOOKS, f"{path.name} links to {target}"


def test_the_index_leads_to_every_page():
    linked = links_of(NBS / "index.ipynb", "\n".join(cells(NBS / "index.ipynb", "markdown")))
    missing = [p.relative_to(NBS).as_posix() for p in NOTEBOOKS if p not in linked and p != NBS / "index.ipynb"]
    assert not missing, f"no link on nbs/index.ipynb leads to {missing}"


def name_of(module):
    "A module below the package: attention, cpu.hooks."
    return ".".join(module.relative_to(LIBRARY).with_suffix("").parts)


def imports_of(module):
    "The modules of the package that a module imports from, wherever in it."
    package = ("transformer_nb", *module.parent.relative_to(LIBRARY).parts)
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            name = ".".join((*base, node.module or ""))
            if name.startswith("transformer_nb."):
                yield name.removeprefix("transformer_nb.")


WALK = ["tokenization", "embeddings", "positional_encoding", "attention", "layer_norm", "multi_head_attention", "transformer", "generation", "training"]
SEAMS = {  # what a chapter may import from behind the walk
    "tokenization": {"config.registry", "data.text_files", "data.token_ids", "data.tokenizer_files"},
    "positional_encoding": {"config.position_table"},
    "generation": {"cpu.decoding", *(f"inference.{name}" for name in ("any_model", "cache", "calls", "prompts", "sampling"))},
    "attention": {"config.checks"},
    "multi_head_attention": {"config.checks", "inference.cache"},
    "transformer": {"config.checks", "config.model", "config.initialization", "config.precision", "inference.cache"},
    "training": {
        "config.training", "data.tokenizer_files", "runs.arguments", "runs.checkpoints", "runs.evaluation", "runs.loop",
        "runs.optimizers", "runs.trainer",
    },
}


def test_the_walk_stands_alone_at_the_top():
    assert [page.stem[3:] for page in PAGES if page.parent == NBS] == WALK
    top = {path.stem for path in LIBRARY.glob("*.py")} - {"__init__", "__main__", "_modidx"}
    assert top == set(WALK)
    assert {path.name for path in NBS.iterdir()} - {".ipynb_checkpoints"} == {"_site", "beyond", "workshop", "index.ipynb", "map.svg", *(f"{i:02}_{name}.ipynb" for i, name in enumerate(WALK))}
    folders = [path for path in LIBRARY.iterdir() if path.is_dir() and path.stem != "__pycache__"]
    assert all(len([path for path in folder.glob("*.py") if path.stem != "__init__"]) > 1 for folder in folders)


def test_imports_run_downhill():
    graph = {name_of(module): set(imports_of(module)) for module in MODULES if module.stem != "__init__"}
    list(TopologicalSorter(graph).static_order())  # raises CycleError for a circle
    for place, chapter in enumerate(WALK):
        uphill = graph[chapter] - set(WALK[:place]) - SEAMS.get(chapter, set())
        assert not uphill, f"{chapter} imports {uphill}"


def test_axis_names_come_from_the_glossary():
    _, _, glossary = transformer_nb.__doc__.partition("Axes in the shapes")
    known = set(re.findall(r"\w+", glossary))
    for module in MODULES:
        for shape in re.findall(r"\b(?:Float|Int|Bool|Shaped)\[\w+, \"([^\"]*)\"\]", module.read_text(encoding="utf-8")):
            for axis in re.findall(r"[a-zA-Z_]\w*", shape):
                assert axis in known, f"{module.stem}: axis {axis!r} is not in the glossary of the package"


def test_the_docstrings_name_every_module_the_walk_in_its_order():
    named = re.findall(r"^    (\w+)   ", transformer_nb.__doc__.partition("Axes in")[0], re.MULTILINE)
    folders = {path.name for path in LIBRARY.iterdir() if (path / "__init__.py").exists()}
    assert named[: len(WALK)] == WALK and set(named[len(WALK) :]) == folders, "list the module in the docstring of transformer_nb/__init__.py"
    for folder in folders:
        listed = re.findall(r"^    (\w+)  ", ast.get_docstring(ast.parse((LIBRARY / folder / "__init__.py").read_text()), clean=False), re.MULTILINE)
        there = {path.stem for path in (LIBRARY / folder).glob("*.py")} - {"__init__"}
        assert set(listed) == there, f"list in the docstring of transformer_nb/{folder}/__init__.py, or drop there: {set(listed) ^ there}"


def test_importing_the_package_loads_no_figures_and_no_notebooks():
    program = (
        "import sys, transformer_nb, transformer_nb.__main__, transformer_nb.notebook.plotting;"
        "print([m for m in ('matplotlib', 'IPython', 'anywidget', 'jupyter_client', 'nbdev', 'pytest', 'beartype') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_snapshot_is_the_prose_of_these_pages():
    assert corpus.drift() < 0.25, "the pages have moved on: when they have settled, make corpus, then run the pages again"


def test_the_version_is_the_same_everywhere():
    said = {"settings.ini": "version = {}", "CITATION.cff": "version: {}", "CHANGELOG.md": "## [{}]"}
    for file, line in said.items():
        assert line.format(transformer_nb.__version__) in (ROOT / file).read_text(encoding="utf-8"), f"{file} gives another version"


FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))


@pytest.mark.parametrize("path", FORMS, ids=lambda p: p.stem)
def test_an_issue_form_is_one_that_github_shows(path):
    issue = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert issue.keys() >= {"name", "description", "body"} and issue.keys() <= {"name", "description", "title", "labels", "body"}
    fields = [item for item in issue["body"] if item["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields) >= 3 and {field["type"] for field in fields} <= {"input", "textarea", "dropdown"}
    assert all(field["attributes"]["label"] and set(field) <= {"type", "id", "attributes", "validations"} for field in fields)
    assert all(item["attributes"]["value"] for item in issue["body"] if item not in fields)


def test_the_line_that_an_issue_form_asks_to_run_says_what_it_is_meant_to():
    (line,) = re.findall(r"`python (-c \".*\")`", (ROOT / ".github/ISSUE_TEMPLATE/number.yml").read_text(encoding="utf-8"))
    done = subprocess.run([sys.executable, *shlex.split(line)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{transformer_nb.__version__} torch {torch.__version__} ") and len(done.stdout.splitlines()) == 1


def test_the_citation_names_the_paper_and_no_person_as_author():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0" and cited["message"] and cited["authors"] == [{"name": "transformer_nb contributors"}]
    (paper,) = cited["references"]
    assert paper["title"] == "Attention Is All You Need" and len(paper["authors"]) == 8


def test_the_oldest_versions_that_are_promised_are_the_oldest_that_are_tested():
    settings = (ROOT / "settings.ini").read_text(encoding="utf-8")
    (python,) = re.findall(r"^min_python = (.*)$", settings, re.MULTILINE)
    assert f'python: ["{python}", ' in (ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8")
    promised = re.findall(r"^(?:dev_)?requirements = (.*)$", settings, re.MULTILINE)
    least = {r.name: Version(s.version) for r in map(Requirement, " ".join(promised).split()) for s in r.specifier if s.operator != "<"}
    tested = re.findall(r"^(\S+)==(\S+)$", (ROOT / "tests" / "oldest.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert {name: Version(version) for name, version in tested} == least


def test_every_public_name_is_there():
    (stub,) = re.findall(r"^__all__ = (.*)", (LIBRARY / "__init__.pyi").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert ast.literal_eval(stub) == transformer_nb.__all__ == sorted(transformer_nb.__all__)
    assert all(hasattr(transformer_nb, name) for name in transformer_nb.__all__)


EACH_TABLE = """
from transformer_nb.config.model import PARTS, ROTATIONS
from transformer_nb.config.registry import import_everything
from transformer_nb.config.training import OPTIMIZERS
from transformer_nb.runs.checkpoints import MODELS
from transformer_nb.tokenization import TOKENIZERS

import_everything()
for kind, table in {**PARTS, "rotation": ROTATIONS, "optimizer": OPTIMIZERS, "model": MODELS, "tokenizer": TOKENIZERS}.items():
    assert len(list(table.values())) == len(table.modules), (kind, set(table.data) - set(table.modules))
"""


def test_each_table_names_the_modules_that_add_to_it():
    subprocess.run([sys.executable, "-c", EACH_TABLE], check=True)


def test_a_part_is_there_for_whoever_imports_one_module_alone():
    program = (
        "from transformer_nb.config.model import PARTS, TransformerConfig; import sys; assert 'torch' not in sys.modules;"
        "config = TransformerConfig.preset('modern', norm='rms', feed_forward='gated');"
        "from transformer_nb.transformer import LanguageModel; LanguageModel(config)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_package_has_its_names_and_modules_and_no_others():
    assert transformer_nb.training.train is transformer_nb.train and {*transformer_nb.__all__} <= {*dir(transformer_nb)}
    with pytest.raises(AttributeError, match="module 'transformer_nb' has no attribute 'no_such_name'"):
        transformer_nb.no_such_name


def test_the_examples_of_the_readme_give_what_they_say(capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        *statements, last = ast.parse(block).body
        space = {}
        exec(compile(ast.Module(statements, []), "README.md", "exec"), space)
        shown = repr(eval(compile(ast.Expression(last.value), "README.md", "eval"), space))
        for line in re.findall(r"^# (.*)$", block, re.MULTILINE):
            assert line in shown
    assert "to be or not to be" in capsys.readouterr().out


def test_the_list_of_mistakes_names_code_that_is_there_and_modules_that_have_tests(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)  # for `pytest` without `python -m`
    mutation = importlib.import_module("tests.mutation")
    gone = "\n".join(mutation.outdated())
    assert not gone, f"lines that tests/mutation.py changes on purpose are different now; write there what they are:\n{gone}"
    assert all(mutation.own_tests(module) for module, *_ in mutation.mutations())
