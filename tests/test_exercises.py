"The exercises: each solution passes its check, and stubs and usual mistakes are refused, each in its own words."

import json
import re
import runpy
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((p for p in (ROOT / "nbs").rglob("[0-9]*.ipynb") if ".ipynb_checkpoints" not in p.parts), key=lambda p: p.stem)
WRONG_ANSWERS = ROOT / "tests" / "wrong_answers"


@cache
def page_cells(page):
    cells = json.loads({p.stem: p for p in PAGES}[page].read_text(encoding="utf-8"))["cells"]
    return [(c["cell_type"], c["metadata"].get("tags", []), "".join(c["source"])) for c in cells]


def exercises(page):
    "The exercises of a page: name, check, stub and solution."
    check = stub = None
    for kind, tags, source in page_cells(page):
        if "check" in tags:
            check = source
        elif "stub" in tags:
            stub = source
        elif kind == "markdown" and check and (found := re.search(r"```python\n(.*?)```", source, re.DOTALL)):
            (name,) = re.findall(r"^def check_(\w+)\(", check, re.MULTILINE)
            yield name, check, stub, found[1]
            check = stub = None
    assert check is None, f"{page}: an exercise without a solution"


def verdict(page, check, name, answer):
    "What the check says to an answer, both run after the imports of the page and nothing else."
    space = {"__name__": "page"}
    imports = [source for kind, _, source in page_cells(page) if kind == "code" and not source.startswith("#| default_exp")][:2]
    for source in (*imports, check, answer):
        exec(compile(source, f"<{page}: {name}>", "exec"), space)
    return space[f"check_{name}"](space[name])


def wrong_answers(page):
    "For each exercise, answers that look right and what each is refused with; none if nobody has written them down."
    file = WRONG_ANSWERS / f"{page}.py"
    return runpy.run_path(file)["WRONG"] if file.exists() else {}


ALL = [(p.stem, *e) for p in PAGES for e in exercises(p.stem)]
IDS = [f"{page[:2]}-{name}" for page, name, *_ in ALL]
WRONG = [
    pytest.param(page, name, check, answer, says, id=f"{page[:2]}-{name}-{i}")
    for page, name, check, *_ in ALL
    for i, (answer, says) in enumerate(wrong_answers(page).get(name, []))
]


@pytest.mark.parametrize("page, name, check, stub, solution", ALL, ids=IDS)
def test_the_solution_is_accepted(page, name, check, stub, solution):
    assert verdict(page, check, name, solution), verdict(page, check, name, solution)


@pytest.mark.parametrize("page, name, check, stub, solution", ALL, ids=IDS)
def test_the_stub_is_refused_as_empty(page, name, check, stub, solution):
    assert "returns None" in repr(verdict(page, check, name, stub))


@pytest.mark.parametrize("page, name, check, answer, says", WRONG)
def test_a_wrong_answer_is_refused_in_its_own_words(page, name, check, answer, says):
    refused = verdict(page, check, name, answer)
    assert not refused and says in repr(refused)


@pytest.mark.parametrize("page", [p.stem for p in PAGES])
def test_a_page_has_two_or_three_exercises_each_refusing_two_mistakes(page):
    names = [name for where, name, *_ in ALL if where == page]
    wrong, file = wrong_answers(page), f"tests/wrong_answers/{page}.py"
    assert 2 <= len(names) <= 3, f"{page} has {len(names)} exercises with a check and a solution"
    assert wrong.keys() == set(names), f"{file} holds wrong answers for each exercise, and for no other name: {wrong.keys() ^ set(names)}"
    for name, answers in wrong.items():
        refusals = {says for _, says in answers}
        assert len(answers) >= 2 and len(refusals) == len(answers), f"{file}: {name} refuses two mistakes or more, each in its own words"
