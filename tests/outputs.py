"""Do the pages still show what is committed? `python tests/outputs.py` runs those that have changed and records the ones that do.

The record, outputs.json, holds a digest of each page as it was when it was last compared: of its code cells and their outputs,
and of everything they depend on. A page with another digest has changed, and is compared before the record accepts it.
"""

import ast
import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import nbformat
from sample import drawn

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "tests" / "outputs.json"
NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d+)?|\bnan\b|\binf\b", re.IGNORECASE)
HUNG = 3600  # seconds that no cell takes on any machine, so only one that never ends is stopped by this
OF_THE_REST = 2  # pages that `make test` compares though nothing says that they have changed
TOLERANCES = {"trained": (0.1, 0.03), None: (1e-3, 1e-6)}  # relative and absolute

# Which pages have changed.


def pages(root: Path = ROOT) -> list[str]:
    "All notebooks, as paths below the root."
    found = [path.relative_to(root) for path in (root / "nbs").rglob("*.ipynb")]
    return sorted(path.as_posix() for path in found if ".ipynb_checkpoints" not in path.parts)


def modules(root: Path = ROOT) -> dict[str, Path]:
    "The files of the package, by the name that imports them."
    found = {path.relative_to(root).with_suffix(""): path for path in (root / "transformer_nb").rglob("*.py")}
    return {".".join(name.parts).removesuffix(".__init__"): path for name, path in found.items() if name.name != "_modidx"}


def imported(source: str, name: str, is_package: bool) -> set[str]:
    "What a module of that name imports anywhere, as absolute names; what it imports from a package may be a module as well."
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            here = name.split(".")[: len(name.split(".")) - node.level + is_package] if node.level else []
            origin = ".".join(filter(None, [*here, node.module]))
            names |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
    return names


def used(code: str, root: Path = ROOT) -> list[str]:
    "The modules that the code of a page uses, directly or through others; all of them if it imports the package as a whole."
    known = modules(root)
    waiting = {"transformer_nb" + name for name in re.findall(r"(?:from|import|-m)\W+transformer_nb((?:\.\w+)*)", code)}
    if "transformer_nb" in waiting:
        return sorted(known)
    found = set()
    while waiting:
        name = waiting.pop()
        if name in known and name not in found:
            found.add(name)
            waiting |= imported(known[name].read_text(encoding="utf-8"), name, known[name].stem == "__init__") - {"transformer_nb"}
    return sorted(found)


def digest(page: str, root: Path = ROOT) -> str:
    "Of all that decides what a page shows: code, outputs, the modules it uses, the corpus, and the versions of all libraries."
    cells = [cell for cell in json.loads((root / page).read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    names, known = used("\n".join("".join(cell["source"]) for cell in cells), root), modules(root)
    parts = [json.dumps([[cell["source"], cell["outputs"], cell["metadata"]] for cell in cells], sort_keys=True)]
    for name in names:
        parts += [name, re.sub(r"(?m)^\s*#.*\n", "", known[name].read_text(encoding="utf-8"))]  # a comment changes nothing
    corpus = ["transformer_nb/data/series.txt"] if any("series.txt" in part for part in parts) else []
    parts += [(root / name).read_text(encoding="utf-8") for name in ["constraints.txt", *corpus]]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def record(root: Path = ROOT) -> dict[str, str]:
    "The digests of the pages when they were last compared."
    path = root / RECORD.relative_to(ROOT)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


@cache
def changed(root: Path = ROOT) -> list[str]:
    "The pages that are no longer what they were when they were last compared."
    before = record(root)
    return [page for page in pages(root) if before.get(page) != digest(page, root)]


# What two runs of a page show.

WIDGET = "application/vnd.jupyter.widget-view+json"  # the type of an output that a widget draws


def drop_widgets(path: Path) -> None:
    "Take the live views out of a page: without the kernel that made them they show nothing, and the picture before them stays."
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    kept = notebook["metadata"].pop("widgets", None)  # the state of the views
    if kept or any(WIDGET in output.get("data", {}) for cell in code for output in cell["outputs"]):
        for cell in code:
            cell["outputs"] = [output for output in cell["outputs"] if WIDGET not in output.get("data", {})]
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def contents(cell):
    "What a cell shows: (kind, content) in order, neighbouring texts of a stream joined."
    shown = []
    for output in cell.get("outputs", []):
        if WIDGET in output.get("data", {}):
            continue  # a live view: what it draws is tested in a browser
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


def run(page: str, folder: Path):
    "A page, run from top to bottom in a kernel of its own, with one thread: the order of a sum depends on it."
    command = Path(sys.executable).with_name("jupyter-nbconvert")
    options = ["--execute", "--to=notebook", f"--output-dir={folder}", f"--ExecutePreprocessor.timeout={HUNG}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([command, *options, ROOT / page], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return nbformat.read(folder / Path(page).name, 4)


def compare(page: str) -> list[str]:
    "Run a page; what it shows that is not what is committed."
    with tempfile.TemporaryDirectory() as folder:
        committed, fresh = nbformat.read(ROOT / page, 4), run(page, Path(folder))
    return [
        f"cell {i} ({cell.source.splitlines()[0][:60]}): {found}"
        for i, (cell, again) in enumerate(zip(committed.cells, fresh.cells, strict=True))
        if cell.cell_type == "code" and (found := disagreement(cell, again))
    ]


def chosen() -> list[str]:
    "The pages that `make test` compares: those that have changed, and a few of the rest."
    return changed() + drawn([page for page in pages() if page not in changed()], OF_THE_REST)


def main(words: list[str]) -> int:
    "Compare the pages that have changed, or those whose path contains one of the words, and record those that agree."
    for page in pages():
        drop_widgets(ROOT / page)
    if words == ["--list"]:
        print(f"{len(changed())} of {len(pages())} pages are not as `make outputs` recorded them; outputs are compared of these and {OF_THE_REST} others:")
        print(", ".join(Path(page).stem for page in chosen()))
        return 0
    asked = [page for page in pages() if any(word in page for word in words)] if words else changed()
    digests, failed = {page: digest(page) for page in asked}, 0
    with ThreadPoolExecutor(2) as pool:
        results = {page: pool.submit(compare, page) for page in reversed(asked)}  # the later pages take longer
        for page in asked:
            try:
                wrong = results[page].result()
            except RuntimeError as error:
                wrong = [str(error)]
            print(f"{page}: {'shows what is committed' if not wrong else chr(10).join(wrong)}", flush=True)
            failed += bool(wrong)
            kept = {p: d for p, d in record().items() if p in pages() and p != page}
            kept |= {} if wrong else {page: digests[page]}
            RECORD.write_text(json.dumps(kept, indent=0, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{len(asked) - failed} of {len(asked)} pages show what is committed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
