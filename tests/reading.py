"""How long does a page take to read? `python tests/reading.py nbs/*.ipynb` prints the minutes of a first reading, and of everything.

A minute is 200 words, 20 lines of code or 2 figures. The first reading leaves out what lies under a folded heading, and the exercises.
Code whose source is hidden takes no time.
"""

import json
import re
import sys
from pathlib import Path

FOLDED = "jp-MarkdownHeadingCollapsed"  # JupyterLab's name for it in the metadata of a heading


def cells_of(path: Path) -> list[dict]:
    "The cells of a notebook, each with its source as one text."
    cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
    return [{**cell, "source": "".join(cell["source"])} for cell in cells]


def heading_level(cell: dict) -> int:
    "2 for `## Heading`, 0 for a cell that is not a heading."
    heading = re.match(r"(#+) ", cell["source"]) if cell["cell_type"] == "markdown" else None
    return len(heading[1]) if heading else 0


def is_folded(cell: dict) -> bool:
    return bool(cell["metadata"].get(FOLDED))


def is_hidden(cell: dict) -> bool:
    "Whether the source of a code cell is hidden."
    return bool(cell["metadata"].get("jupyter", {}).get("source_hidden"))


def parts(cells: list[dict]) -> list[str]:
    "For each cell: first reading, folded, or exercises. A folded heading is visible, so it belongs to the first reading."
    found, part, within = [], "first reading", 0  # the level of the heading that began the part
    for cell in cells:
        level = heading_level(cell)
        if level and (part == "first reading" or level <= within):
            is_exercises = re.match("#+ Exercises", cell["source"])
            part = "folded" if is_folded(cell) else "exercises" if is_exercises else "first reading"
            within = level
            found.append("first reading" if is_folded(cell) else part)
        else:
            found.append(part)
    return found


def minutes(cell: dict) -> float:
    "The time that one cell takes."
    source = cell["source"]
    if cell["cell_type"] == "markdown":
        for other in (r"(?s)```.*?```", r"(?s)\$\$.*?\$\$", r"\$[^$\n]*\$|`[^`\n]*`|\]\([^)]*\)"):  # code, equations, links
            source = re.sub(other, " ", source)
        return len(re.findall(r"[A-Za-z][\w'-]*", source)) / 200
    lines = [line for line in source.splitlines() if line.strip() and not line.startswith("#|")]
    figures = [output for output in cell["outputs"] if any(kind.startswith("image/") for kind in output.get("data", {}))]
    unseen = is_hidden(cell) or re.match(r"#\|\s*(default_exp|hide)", source)
    return (0 if unseen else len(lines) / 20) + len(figures) / 2


def first_reading(path: Path) -> float:
    "Minutes for everything that is not folded."
    cells = cells_of(path)
    return sum(minutes(cell) for cell, part in zip(cells, parts(cells)) if part == "first reading")


def whole(path: Path) -> float:
    "Minutes for the page with everything unfolded, and its exercises."
    return sum(map(minutes, cells_of(path)))


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print(f"{Path(path).stem:34} first reading {first_reading(path):4.0f} min, everything {whole(path):4.0f} min")
