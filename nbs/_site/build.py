"""Build the static site from the committed notebooks: python nbs/_site/build.py

The notebooks become Markdown pages with their stored outputs; nothing is run again. Sphinx turns these pages,
and the reference made by reference.py, into HTML. Everything is written below runs/site; the site is runs/site/html.
"""

import json
import re
import shutil
import sys
from base64 import b64decode
from html import escape
from pathlib import Path

HERE = Path(__file__).resolve().parent
NBS, ROOT = HERE.parent, HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

import reference  # noqa: E402
import views  # noqa: E402
from sphinx.cmd.build import main as sphinx  # noqa: E402

from transformer_nb.notebook.cheat_sheet import CheatSheet  # noqa: E402
from transformer_nb.notebook.map import transformer_map  # noqa: E402

FOLDED = "<!-- folded -->"  # after a heading: conf.py folds the section
UNNAMED = "guides"  # the group of workshop pages that export no module


def fence(text: str, language: str) -> str:
    "Return a block of code in Markdown, whatever backticks the code has."
    ticks = "`" * (1 + max([2, *map(len, re.findall("`+", text))]))
    return f"{ticks}{language}\n{text}\n{ticks}"


def fold(summary: str, content: str, kind: str) -> str:
    "Return content that a reader opens; `summary` is Markdown with code in backticks at most."
    label = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(summary, quote=False))
    return f'<details class="{kind}"><summary>{label}</summary>\n\n{content}\n\n</details>'


class Page:
    "A notebook as a page in Markdown."

    def __init__(self, path: Path):
        self.path, self.name = path, path.relative_to(NBS).with_suffix("").as_posix()
        self.cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for cell in self.cells:
            cell["source"] = "".join(cell["source"])
        title, _, self.tagline = self.cells[0]["source"].partition("\n> ")
        self.title = title.removeprefix("# ")
        exports = (cell["source"] for cell in self.cells if cell["source"].startswith("#| default_exp "))
        self.module = next(exports, "").removeprefix("#| default_exp ").strip()
        self.up = "../" * self.name.count("/")
        self.pictures = 0

    @property
    def menu(self) -> str:
        "The title in the menu: pages of the series have their number in front."
        number = self.path.stem[:2]
        return f"{number} {self.title}" if number.isdigit() else self.title

    @property
    def group(self) -> str:
        "The sub-package of a page of the workshop."
        package = self.module.partition(".")[0]
        return package if package in reference.subpackages() else UNNAMED

    def markdown(self, folder: Path) -> str:
        "Return the page, and write its pictures into a folder of sources."
        blocks = []
        guessing = False  # between a question and its answer, what would give the answer away is folded
        for number, cell in enumerate(self.cells):
            if cell["cell_type"] == "markdown":
                blocks.append(self.prose(cell) + (self.how_to_run() if number == 0 else ""))
                continue
            guessing = guessing or re.search(r"^guess\w* = ", cell["source"], re.MULTILINE) is not None
            blocks += self.code(cell, guessing, folder)
            guessing = guessing and "reveal" not in cell["source"]
            blocks += views.frames(self.name, cell["source"], self.up)
        return "\n\n".join(block for block in blocks if block) + "\n"

    def prose(self, cell: dict) -> str:
        text = linked(cell["source"])
        return f"{text}\n\n{FOLDED}" if cell["metadata"].get("jp-MarkdownHeadingCollapsed") else text

    def how_to_run(self) -> str:
        "The line below the title."
        path = self.path.relative_to(ROOT).as_posix()
        module = reference.address(self.module)
        exports = f" It exports [`transformer_nb.{self.module}`]({self.up}{module})." if module else ""
        return (
            f'\n\n<div class="run">\n\nRun this page in JupyterLab: `make lab` in a clone of the repository, then open `{path}`'
            f' (<a href="{self.path.name}" download>download the notebook</a>).{exports}\n\n</div>'
        )

    def code(self, cell: dict, guessing: bool, folder: Path) -> list[str]:
        "Return the blocks of a code cell: its source without nbdev's directives, and what it printed."
        lines = cell["source"].splitlines()
        source = "\n".join(line for line in lines if not line.startswith("#|")).strip("\n")
        outputs = [] if "stub" in cell["metadata"].get("tags", ()) else cell["outputs"]  # an exercise says: not yet
        shown = "\n\n".join(filter(None, (self.output(output, folder) for output in outputs)))
        if shown:
            shown = f'<div class="output">\n\n{shown}\n\n</div>'
        if guessing and shown:
            shown = fold("Show the answer" if "reveal" in source else "Show the result", shown, "answer")
        if not source:
            return [shown]
        block = fence(source, "python")
        if cell["metadata"].get("jupyter", {}).get("source_hidden"):
            first = source.splitlines()[0]
            unnamed = "Imports" if first.startswith(("import ", "from ")) else "Code"
            return [fold(first.lstrip("# ") if first.startswith("#") else unnamed, block, "source"), shown]
        exported = lines[0].startswith("#| export")
        return [f'<div class="exported">\n\n{block}\n\n</div>' if exported else block, shown]

    def output(self, output: dict, folder: Path) -> str:
        "Return one stored output."
        if output["output_type"] == "stream":
            return fence("".join(output["text"]).rstrip("\n"), "text")
        data = {kind: "".join(value) if isinstance(value, list) else value for kind, value in output["data"].items()}
        if "image/svg+xml" in data:
            return self.drawing(data, folder)
        if "image/png" in data:
            alt = output["metadata"].get("image/png", {}).get("alt") or data["text/plain"]
            return self.picture(b64decode(data["image/png"]), "png", alt, folder)
        if "text/markdown" in data:
            return re.sub(r"(?m)^#+ (.*)$", r"**\1**", linked(data["text/markdown"]))  # no heading of this page
        return fence(data["text/plain"], "text") if data.get("text/plain") else ""

    def drawing(self, data: dict, folder: Path) -> str:
        "Return the map of the Transformer with boxes that lead to their pages, or any other drawing as a picture."
        svg = data["image/svg+xml"]
        here = re.search(r"<title>The Transformer: .*?(?:; lit: (.*?))?</title>", svg)
        if here is None or self.module == "notebook.map":
            return self.picture(svg.encode(), "svg", data["text/plain"], folder)
        drawing = transformer_map(here[1] and here[1].replace(" ", "_"), links=True)
        inline = drawing.source.replace('role="img"', f'role="group" aria-label="{escape(drawing.alt)}"')
        inline = re.sub(r'<a href="(\w+)\.ipynb">', rf'<a href="{self.up}\1.html">', inline)
        return f'<div class="map">{inline}</div>'

    def picture(self, content: bytes, kind: str, alt: str, folder: Path) -> str:
        "Write a picture and return the block that shows it."
        self.pictures += 1
        name = f"{self.name.replace('/', '-')}-{self.pictures}.{kind}"
        write(folder / "pictures" / name, content)
        return f"```{{image}} /pictures/{name}\n:alt: {' '.join(alt.split())}\n```"


def linked(text: str) -> str:
    "Return Markdown whose links to notebooks lead to their pages."
    return re.sub(r"\]\(([\w./-]+)\.ipynb(#[^)\s]*)?\)", r"](\1.md\2)", text)


def write(path: Path, content: str | bytes) -> None:
    "Write a file if it changes, so that Sphinx reads again only what has changed."
    content = content.encode() if isinstance(content, str) else content
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def toctree(names: list[str], caption: str = "") -> str:
    "Return entries of the menu, which is not shown on the page itself."
    options = ":hidden:\n" + (f":caption: {caption}\n" if caption else "")
    return "```{toctree}\n" + options + "\n" + "\n".join(names) + "\n```"


def write_sources(folder: Path) -> set[str]:
    "Write the pages of the site as Markdown: the notebooks, their groups, the reference, and a few others. Return their names."
    paths = [path for path in NBS.rglob("*.ipynb") if not {".ipynb_checkpoints", "_site"} & {*path.parts}]
    pages = sorted(map(Page, paths), key=lambda page: page.name)
    texts = {page.name: page.markdown(folder) for page in pages}
    entries = {page.name: f"{page.menu} </{page.name}>" for page in pages}
    groups = group_pages([page for page in pages if page.name.startswith("workshop/")])
    texts |= groups | reference.pages({page.module: f"[{page.title}](/{page.name}.md)" for page in pages})
    sheet = CheatSheet(NBS)
    texts["cheatsheet"] = (
        "# Cheat sheet\n> The summaries of all pages of the walk.\n\n"
        '<a href="cheatsheet_print.html">The same on one sheet, to print</a>\n\n' + linked(sheet._repr_markdown_())
    )
    texts["404"] = (
        "# This page does not exist\n> The address may be misspelled, or the page has moved.\n\n"
        "Start at the [index](index.md), or use the search."
    )
    walk, beyond = ([entries[n] for n in entries if re.fullmatch(form, n)] for form in (r"\d\d_\w+", r"beyond/\w+"))
    menu = [
        toctree(walk, "The walk"),
        toctree(beyond, "Beyond"),
        toctree([f"/{name}" for name in groups], "The workshop"),
        toctree(["/reference/index", "/cheatsheet"], "The package"),
    ]
    texts["index"] += "\n" + "\n\n".join(menu) + "\n"
    for name, text in texts.items():
        about = re.search(r"^# .*\n+(?:> )?(.+)", text, re.MULTILINE)[1].replace("`", "")  # the line below the title
        meta = f"orphan: {json.dumps(name == '404')}\nmyst:\n  html_meta:\n    description: {json.dumps(about, ensure_ascii=False)}"
        write(folder / f"{name}.md", f"---\n{meta}\n---\n{text}")
    return {*texts}


def group_pages(pages: list[Page]) -> dict[str, str]:
    "Return a page for each group of the workshop, which lists its notebooks: those of a sub-package, and the others."
    order = [UNNAMED, *reference.subpackages()]
    groups = {name: [page for page in pages if page.group == name] for name in order}
    texts = {}
    for name, members in groups.items():
        if not members:
            continue
        if name == UNNAMED:
            title, about = "Guides", "Recipes, and how to extend the package."
        else:
            modules = reference.modules(name)
            members.sort(key=lambda page: modules.index(page.module.partition(".")[2]))
            title, about = name, reference.first_sentence(name)
        rows = "\n".join(f"| [{page.title}](/{page.name}.md) | {page.tagline} |" for page in members)
        link = f"\n\nThe names of these modules: [transformer_nb.{name}](/reference/{name}.md)." if name != UNNAMED else ""
        menu = toctree([f"{page.title} </{page.name}>" for page in members])
        texts[f"workshop/{name}"] = f"# {title}\n> {about}\n\n| page | what it is about |\n|---|---|\n{rows}{link}\n\n{menu}\n"
    return texts


def without_outputs(notebook: Path) -> str:
    "Return a notebook to download: whoever runs it makes its outputs, which are most of its size."
    content = json.loads(notebook.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def main(out: Path) -> int:
    "Write the sources, run Sphinx on them, and add what Sphinx does not write."
    source, html = out / "source", out / "html"
    names = write_sources(source)
    gone = [path for path in source.rglob("*.md") if path.relative_to(source).with_suffix("").as_posix() not in names]
    if gone:  # nothing of an old page stays
        for folder in (source, html, out / "doctrees"):
            shutil.rmtree(folder, ignore_errors=True)
        write_sources(source)
    views.make(out / "views")
    status = sphinx(["-q", "-W", "--keep-going", "-j", "2", "-c", str(HERE), "-d", str(out / "doctrees"), str(source), str(html)])
    shutil.copytree(out / "views", html / "views", dirs_exist_ok=True)
    icon = '<link rel="icon" href="_static/favicon.svg">\n<title>'
    write(html / "cheatsheet_print.html", CheatSheet(NBS).to_html().replace("<title>", icon, 1))
    for page in source.rglob("*.md"):
        notebook = NBS / page.relative_to(source).with_suffix(".ipynb")
        if notebook.exists():
            write(html / notebook.relative_to(NBS), without_outputs(notebook))
    (html / ".nojekyll").touch()  # GitHub Pages then serves folders whose name starts with _
    return status


if __name__ == "__main__":
    out = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "runs" / "site").resolve()
    sys.exit(main(out))
