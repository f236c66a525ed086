"""Does a page of the walk keep the form of the series? `python tests/form.py nbs/03_attention.ipynb` prints what does not.

The form is described in CONTRIBUTING.md, under "The form of a page".
"""

import ast
import re
import symtable
import sys
from pathlib import Path
from statistics import median

from reading import cells_of, first_reading, heading_level, is_folded, is_hidden, parts, whole

MINUTES = 27  # of a first reading, at most
LONGEST, LONGEST_EXPORT, MEDIAN = 20, 45, 6  # lines of visible code
LABELS = ["The idea.", "Shapes.", "When it goes wrong.", "Interview questions."]
GUESS = r'guess = (""  # type [a-z](, [a-z])* or [a-z] between the quotes|\.\.\.  # type a number.* in place of the dots)'


def code_of(cell: dict) -> str:
    "A code cell without directives of nbdev, magics and empty lines."
    return "\n".join(line for line in cell["source"].splitlines() if line.strip() and not line.startswith(("#|", "%", "!")))


def is_export(cell: dict) -> bool:
    return cell["source"].startswith("#| export")


def section(cells: list[dict], heading: str) -> list[dict]:
    "What follows a heading, up to the next one of its level or above."
    start = [cell["source"] for cell in cells].index(heading) + 1
    level = heading_level(cells[start - 1])
    ends = [i for i, cell in enumerate(cells[start:], start) if 0 < heading_level(cell) <= level]
    return cells[start : ends[0] if ends else None]


def faults_of_the_order(cells: list[dict]) -> list[str]:
    "Summary, Going further, folded sections, Exercises; and nothing else is folded."
    headings = [(cell["source"], is_folded(cell)) for cell in cells if heading_level(cell) == 2]
    names = [name for name, _ in headings]
    missing = [name for name in ("## Summary", "## Going further", "## Exercises") if names.count(name) != 1]
    if missing:
        return [f"not there, or not once, in a cell of its own: {', '.join(missing)}"]
    summary, further, exercises = map(names.index, ("## Summary", "## Going further", "## Exercises"))
    found = [] if summary + 1 == further < exercises == len(names) - 1 else ["the order is Summary, Going further, folded sections, Exercises"]
    found += [f"not folded: {name}" for name, folded in headings[further + 1 : exercises] if not folded]
    found += [f"folded: {name}" for name, folded in headings[: further + 1] + headings[exercises:] if folded]
    found += [f"folded: {cell['source']}" for cell in cells if is_folded(cell) and heading_level(cell) != 2]
    if [cell["cell_type"] for cell in section(cells, "## Going further")] != ["markdown"]:
        found.append("under Going further stands one sentence, in one cell")
    return found


def faults_of_the_summary(cells: list[dict]) -> list[str]:
    "Four cells with a label each; two of them are tables, one is a list of questions."
    if not any(cell["source"] == "## Summary" for cell in cells):
        return []  # said already
    summary = [cell for cell in section(cells, "## Summary") if not is_hidden(cell)]
    texts = [cell["source"] for cell in summary]
    if [re.findall(r"\A\*\*(.*?)\*\*", text) for text in texts] != [[label] for label in LABELS]:
        return [f"the cells of the Summary begin with {', '.join(f'**{label}**' for label in LABELS)}"]
    _, shapes, wrong, questions = texts
    found = []
    if not re.search(r"^\|[-:| ]+\|$", shapes, re.MULTILINE):
        found.append("the shapes are a table")
    if not re.search(r"^\| *symptom *\| *cause *\| *test *\|$", wrong, re.MULTILINE | re.IGNORECASE):
        found.append("what goes wrong is a table: symptom, cause, test")
    if not re.search(r"^- \*.+?\?\* \S", questions, re.MULTILINE):
        found.append("the interview questions are a list: - *Question?* Answer.")
    return found


def faults_of_the_code(cells: list[dict]) -> list[str]:
    "Short cells, at most one assertion in each; hidden ones begin with a comment; a guess is typed between quotes or for dots."
    found, lengths = [], []
    for i, (cell, part) in enumerate(zip(cells, parts(cells))):
        code = code_of(cell) if cell["cell_type"] == "code" else ""
        lines = code.splitlines()
        if is_hidden(cell) and code and not re.match(r"#(\W*\w+){3}", lines[0]):
            found.append(f"cell {i} is hidden and begins with no comment of three words: {lines[0][:60]}")
        if lines and lines[0].startswith("guess =") and not re.fullmatch(GUESS, code):
            found.append(f"cell {i} asks for a guess in another way: {lines[0][:60]}")
        if not lines or is_hidden(cell) or part != "first reading":
            continue
        most = LONGEST_EXPORT if is_export(cell) else LONGEST
        if len(lines) > most:
            found.append(f"cell {i} has {len(lines)} lines, more than {most}: {lines[0][:60]}")
        if not is_export(cell):
            lengths.append(len(lines))
            asserts = sum(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(code)))
            if asserts > 1:
                found.append(f"cell {i} has {asserts} assertions, more than one: {lines[0][:60]}")
    if lengths and median(lengths) > MEDIAN:
        found.append(f"the median of the visible code cells is {median(lengths)} lines, more than {MEDIAN}")
    return found


def names(cell: dict) -> tuple[set[str], set[str]]:
    "The global names that a code cell defines, and those that it uses."
    tables = [symtable.symtable(code_of(cell), "cell", "exec")]
    defined = {s.get_name() for s in tables[0].get_symbols() if s.is_assigned() or s.is_imported()}
    used = {s.get_name() for s in tables[0].get_symbols() if s.is_referenced()}
    while tables:
        table = tables.pop()
        tables += table.get_children()
        used |= {s.get_name() for s in table.get_symbols() if s.is_global() and s.is_referenced()}
    return defined, used


def faults_of_the_names(cells: list[dict]) -> list[str]:
    "What is used in the first reading or in an exercise is not defined in folded sections alone."
    code = [(i, part == "folded", *names(cell)) for i, (cell, part) in enumerate(zip(cells, parts(cells))) if cell["cell_type"] == "code"]
    visible = {name for _, folded, defined, _ in code if not folded for name in defined}
    folded_only = {name for _, folded, defined, _ in code if folded for name in defined} - visible
    return [
        f"cell {i} uses what only a folded section defines: {', '.join(sorted(used & folded_only))}"
        for i, folded, _, used in code
        if not folded and used & folded_only
    ]


def faults(path: Path) -> list[str]:
    "All in which a page differs from the form, a sentence each."
    cells, minutes = cells_of(path), first_reading(path)
    found = [f"the first reading takes {minutes:.0f} minutes, more than {MINUTES}"] if minutes > MINUTES else []
    for check in (faults_of_the_order, faults_of_the_summary, faults_of_the_code, faults_of_the_names):
        found += check(cells)
    return found


if __name__ == "__main__":
    for page in map(Path, sys.argv[1:]):
        print(f"{page.stem}: first reading {first_reading(page):.0f} min, everything {whole(page):.0f} min")
        print(*(f"- {fault}" for fault in faults(page)), sep="\n")
