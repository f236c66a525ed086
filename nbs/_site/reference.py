"""The reference of the package as pages in Markdown, read from its sources.

A signature is shown as it is written: one parameter a line, with its shape and its comment.
"""

import ast
import inspect
import re
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "transformer_nb"
WALK = "tokenization embeddings positional_encoding attention layer_norm multi_head_attention transformer generation training".split()


@cache
def read(module: str) -> tuple[ast.Module, list[str]]:
    "Return a module, such as `attention` or `cpu.hooks`, or a sub-package, as a tree and as lines."
    path = PACKAGE.joinpath(*module.split("."))
    text = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")
    return ast.parse(text), text.split("\n")


def listed(module: str) -> list[str]:
    "Return the names that a docstring lists, one an indented line."
    text = ast.get_docstring(read(module)[0], clean=False)
    return re.findall(r"^    (\w+)  ", text.partition("Axes in")[0], re.MULTILINE)


def subpackages() -> list[str]:
    "Return the sub-packages in reading order."
    return [name for name in listed("") if name not in WALK]


def modules(package: str) -> list[str]:
    "Return the modules of a sub-package in reading order."
    return listed(package)


def first_sentence(module: str) -> str:
    return ast.get_docstring(read(module)[0]).split("\n\n")[0].replace("\n", " ")


def address(module: str) -> str:
    "Return the source of the page on a module, or '' for none."
    package, _, inner = module.partition(".")
    if package not in [*WALK, *subpackages()]:
        return ""
    return f"reference/{package}.md#{label(module)}" if inner else f"reference/{package}.md"


def label(name: str) -> str:
    "Return the anchor of a module: `cpu.hooks` -> `cpu-hooks`, as docutils makes it."
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def anchor(module: str, name: str) -> str:
    "Return the anchor of a name. What it is belongs to it, since `trace` and `Trace` are two names of one module."
    kind = "-constant" if name.isupper() else "-class" if name[0].isupper() and "." not in name else ""
    return label(f"{module}.{name}") + kind


def source(node: ast.AST, lines: list[str], last: int | None = None) -> str:
    "Return the source of a node, with the comments on its lines; `last` is its last line."
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))])
    return inspect.cleandoc("\n".join(["", *lines[first - 1 : last or node.end_lineno]]))


def signature(node: ast.AST, lines: list[str]) -> str:
    "Return a function or class as far as its body, without the colon. A class has its fields, or its `__init__`."
    head = re.sub(r":\s*(#.*)?$", "", source(node, lines, node.body[0].lineno - 1 if node.body[0].lineno > node.lineno else node.lineno))
    if not isinstance(node, ast.ClassDef):
        return head
    fields = [source(one, lines) for one in node.body if isinstance(one, ast.AnnAssign)]
    inits = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
    parts = fields or [signature(one, lines) for one in inits]
    return head + "".join(":\n" * (i == 0) + re.sub("^", "    ", part, flags=re.MULTILINE) + "\n" for i, part in enumerate(parts)).rstrip()


def prose(docstring: str | None) -> str:
    "Return a docstring as Markdown: its examples are code, and so is what is indented."
    blocks, example = [], []
    for line in [*inspect.cleandoc(docstring or "").split("\n"), None]:
        if example and not line:
            blocks.append("```pycon\n" + "\n".join(example) + "\n```\n")
            example = []
        elif line is not None and (example or line.startswith(">>> ")):
            example.append(line)
            continue
        if line is not None:
            code = line.startswith("    ")
            blocks.append(line if code else re.sub(r"(?<!`)([<$*])(?=[^`]*(?:`[^`]*`[^`]*)*$)", r"\\\1", line))
    return "\n".join(blocks)


def entry(module: str, node: ast.AST, lines: list[str], level: int, owner: str = "") -> str:
    "Return what the reference says about a function, a class or a constant."
    name = owner + (node.name if hasattr(node, "name") else node.targets[0].id if isinstance(node, ast.Assign) else node.target.id)
    parts = [f"({anchor(module, name)})=\n{'#' * level} `{name}`"]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        return "\n\n".join([*parts, f"```python\n{source(node, lines)}\n```"])
    parts += [f"```python\n{signature(node, lines)}\n```", prose(ast.get_docstring(node))]
    for one in node.body if isinstance(node, ast.ClassDef) else ():
        if isinstance(one, ast.FunctionDef) and not one.name.startswith("_") and ast.get_docstring(one):
            parts.append(entry(module, one, lines, level + 1, f"{node.name}."))
    return "\n\n".join(parts)


def names(module: str) -> dict[str, ast.AST]:
    "Return what a module exports, by name, in the order of its source."
    found, exported = {}, set()
    for node in read(module)[0].body:
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        for name in [node.name] if hasattr(node, "name") else [one.id for one in targets if isinstance(one, ast.Name)]:
            if name == "__all__":
                exported = set(ast.literal_eval(node.value))
            found[name] = node
    return {name: node for name, node in found.items() if name in exported}


def entries(module: str, level: int) -> list[str]:
    return [entry(module, node, read(module)[1], level) for node in names(module).values()]


def about(module: str, notebooks: dict[str, str]) -> str:
    "Return the docstring of a module and a link to the page that explains it."
    page = f"\n\nExplained on the page {notebooks[module]}; the names of axes are in the [list](/reference/index.md)." if module in notebooks else ""
    return prose(ast.get_docstring(read(module)[0])) + page


def pages(notebooks: dict[str, str]) -> dict[str, str]:
    """Return the pages of the reference: one for each chapter, and one for each sub-package with all its modules.

    `notebooks` has a link to the page of each module."""
    texts = {}
    for module in WALK:
        texts[f"reference/{module}"] = "\n\n".join([f"# {module}", about(module, notebooks), *entries(module, 2)]) + "\n"
    for package in subpackages():
        blocks = [f"# {package}", about(package, notebooks)]
        for module in (f"{package}.{name}" for name in modules(package)):
            blocks += [f"({label(module)})=\n## {module}", about(module, notebooks), *entries(module, 3)]
        texts[f"reference/{package}"] = "\n\n".join(blocks) + "\n"
    menu = "\n".join(f"{name} </{path}>" for path in texts for name in [path.removeprefix("reference/")])
    rows = "\n".join(f"| [{path.partition('/')[2]}](/{path}.md) | {first_sentence(path.partition('/')[2])} |" for path in texts)
    texts["reference/index"] = (
        f"# Reference\n> Every public name of the package, with the shapes of its arguments.\n\n| module | what it has |\n|---|---|\n{rows}\n\n"
        f"## transformer_nb\n\n{about('', {})}\n\n```{{toctree}}\n:hidden:\n\n{menu}\n```\n"
    )
    return texts


def targets() -> dict[str, str]:
    "Return the anchor of each name that the text of a page may link to: those that only one module exports."
    found: dict[str, list[str]] = {}
    for module in [*WALK, *(f"{package}.{module}" for package in subpackages() for module in modules(package))]:
        for name in names(module):
            found.setdefault(name, []).append(anchor(module, name))
    return {name: anchors[0] for name, anchors in found.items() if len(anchors) == 1 and re.search("_|[a-z][A-Z]", name)}
