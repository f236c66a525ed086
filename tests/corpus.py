"""The prose of the series: `python -m tests.corpus` takes the snapshot that the package carries."""

import json
import re
from difflib import SequenceMatcher
from pathlib import Path

ROOT = Path(__file__).parents[1]
SNAPSHOT = ROOT / "transformer_nb" / "data" / "series.txt"


def pages() -> list[Path]:
    "The pages in the order of reading: the index, the walk, and beyond. The workshop describes tools, and changes with them."
    numbered = [path for folder in ("nbs", "nbs/beyond") for path in (ROOT / folder).glob("[0-9]*.ipynb")]
    return [ROOT / "nbs" / "index.ipynb", *sorted(numbered, key=lambda path: path.stem)]


def plain(markdown: str) -> str:
    "The sentences of a markdown cell, without what is no prose: equations, tables, code, markup."
    text = re.sub(r"```.*?```|\$\$.*?\$\$|<[^>]*>", "", markdown, flags=re.DOTALL)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)  # links keep their words
    lines = [line for line in text.splitlines() if not re.match(r"\||.*[←→]", line)]  # tables, links to other pages
    lines = [re.sub(r"^(#+|>|[-*]|\d+\.) +", "", line) for line in lines]
    return re.sub(r"[*`$]", "", "\n".join(lines)).strip()


def prose() -> str:
    "The prose of all pages."
    cells = [
        plain("".join(cell["source"]))
        for page in pages()
        for cell in json.loads(page.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "markdown"
    ]
    return "\n\n".join(filter(None, cells)) + "\n"


def drift() -> float:
    "The part of today's paragraphs that the snapshot does not have."
    then, now = (text.split("\n\n") for text in (SNAPSHOT.read_text(encoding="utf-8"), prose()))
    same = sum(block.size for block in SequenceMatcher(None, then, now, autojunk=False).get_matching_blocks())
    return 1 - same / len(now)


if __name__ == "__main__":
    before = drift() if SNAPSHOT.exists() else 1.0
    SNAPSHOT.parent.mkdir(exist_ok=True)
    SNAPSHOT.write_text(prose(), encoding="utf-8")
    print(f"{SNAPSHOT.relative_to(ROOT)}: {len(prose()):,} characters; {before:.0%} of the paragraphs had changed")
    print("Run the notebooks again, so that their outputs belong to this text.")
