"""The views of `explore` that the site shows: saved files, which need no kernel.

The pages show a static picture where JupyterLab has the live view. For the pages named here, the cells that make the
model are run once, and what the page explores is saved as a file.
"""

import json
import os
from html import escape
from pathlib import Path

NBS = Path(__file__).resolve().parents[1]
VIEWS = {  # the page; the first words of the last cell to run; the cell that shows the view; what it shows
    "07_generation": ("model = train_model(", "explore(model, tokenizer,", "What a model of page 07 computes for a text"),
    "workshop/explorer": ("explore(model, tokenizer,", "explore(model, tokenizer,", "What a small model computes for a text"),
}


def file_of(page: str) -> str:
    return page.rpartition("/")[2] + ".html"


def frames(page: str, source: str, up: str) -> list[str]:
    "Return the view that belongs below a cell of a page, as a block of Markdown, or nothing."
    if page not in VIEWS or not source_has(source, VIEWS[page][1]):
        return []
    address = f"{up}views/{file_of(page)}"
    return [
        f'<div class="view">\n\nThe same view to click on, or <a href="{address}">on a page of its own</a>:\n\n'
        f'<iframe src="{address}" title="{escape(VIEWS[page][2])}" loading="lazy"></iframe>\n\n</div>'
    ]


def source_has(source: str, words: str) -> bool:
    "Whether a line of a cell begins with some words."
    return any(line.startswith(words) for line in source.splitlines())


def save_view(page: str, path: Path) -> None:
    "Run the cells of a page that make its model, then the cell that explores it, and save what that returns."
    until, shown, _ = VIEWS[page]
    cells = json.loads((NBS / f"{page}.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    last = next(i for i, source in enumerate(sources) if source_has(source, until))
    space: dict[str, object] = {}
    for source in sources[: last + 1]:
        exec(source, space)
    (call,) = [line for source in sources for line in source.splitlines() if line.startswith(shown)]
    exec(f"view = {call.removeprefix('view = ')}", space)
    path.parent.mkdir(parents=True, exist_ok=True)
    space["view"].save(path)


def make(folder: Path) -> None:
    "Write the views that are not there yet, or older than the package, their page or this file."
    os.environ |= {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}  # one thread gives the same numbers each time
    package = NBS.parent / "transformer_nb"
    for page in VIEWS:
        sources = [Path(__file__), NBS / f"{page}.ipynb", *(path for path in package.rglob("*") if path.suffix in {".py", ".js", ".css"})]
        path = folder / file_of(page)
        if not path.exists() or path.stat().st_mtime < max(source.stat().st_mtime for source in sources):
            save_view(page, path)
