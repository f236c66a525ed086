"""Every public name of the package: its type hints, its docstring and its name, and the size and imports of its module.

Each failure says the module, the name and the reason.
"""

import ast
import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
import typing
from functools import cached_property
from pathlib import Path

import pytest
import torch
import torch.utils.data  # noqa: F401  one of the NAMESPACES

import transformer_nb

LIBRARY = Path(transformer_nb.__file__).parent
MODULES = ["transformer_nb"] + sorted(
    found.name
    for found in pkgutil.walk_packages(transformer_nb.__path__, "transformer_nb.")
    if not found.name.endswith("._modidx")
)
IN_EACH_MODULE = dict(argvalues=MODULES, ids=lambda name: name.removeprefix("transformer_nb."))
CHECKED_METHODS = ("__init__", "__call__")  # the special methods whose arguments a user passes


def test_the_modules_are_found():
    files = {path for path in LIBRARY.rglob("*.py") if path.stem != "_modidx"}
    assert {file_of(name) for name in MODULES} == files


def public(name: str) -> bool:
    return not name.startswith("_")


def file_of(module: str) -> Path:
    "The file of a module."
    path = LIBRARY.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def defined_in(module: str) -> dict[str, object]:
    "The public functions and classes that a module defines itself."
    loaded = importlib.import_module(module)
    return {
        name: value
        for name, value in vars(loaded).items()
        if public(name) and callable(value) and getattr(value, "__module__", None) == module
        if inspect.isclass(value) or inspect.isroutine(inspect.unwrap(value))
    }


def function_of(member: object) -> object | None:
    "The function behind a method, a property, a class method or a static method; None for anything else."
    if isinstance(member, property):
        return member.fget
    if isinstance(member, cached_property):
        return member.func
    member = getattr(member, "__func__", member)
    return member if inspect.isfunction(member) else None


def methods_of(module: str, name: str, cls: type) -> dict[str, object]:
    "The public methods that a class defines itself, by qualified name; not those that Python generates for it."
    methods = {}
    for attribute, member in vars(cls).items():
        function = function_of(member)
        if function is None or not (public(attribute) or attribute in CHECKED_METHODS):
            continue
        if inspect.unwrap(function).__module__ == module:
            methods[f"{name}.{attribute}"] = function
    return methods


def everything(module: str) -> dict[str, object]:
    "The public functions, classes and methods of a module."
    found = defined_in(module)
    for name, value in list(found.items()):
        if inspect.isclass(value):
            found |= methods_of(module, name, value)
    return found


# Type hints


@pytest.mark.parametrize("module", **IN_EACH_MODULE)
def test_type_hints_can_be_resolved(module):
    wrong = []
    for name, value in everything(module).items():
        try:
            typing.get_type_hints(value)
        except Exception as error:
            wrong.append(f"{module}: {name}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)


# Docstrings


def docstring_problem(name: str, value: object) -> str | None:
    "What is wrong with a docstring, if anything."
    text = (value.__doc__ or "").strip()
    if not text:
        return "no docstring"
    if inspect.isclass(value) and text.startswith(f"{name}("):
        return "only the docstring that Python generates"
    if len(re.findall(r"\w+", text.partition("\n\n")[0])) < 3:
        return f"less than a phrase: {text!r}"
    return None


@pytest.mark.parametrize("module", **IN_EACH_MODULE)
def test_public_names_have_a_docstring(module):
    names = {module: importlib.import_module(module), **everything(module)}
    wrong = [
        f"{module}: {name}: {problem}"
        for name, value in names.items()
        if not name.endswith(CHECKED_METHODS)
        if (problem := docstring_problem(name, value))
    ]
    assert not wrong, "\n".join(wrong)


# Imports

IMPORT_ALONE = """
import importlib, json, sys, types
import torch

library, *modules = sys.argv[1:]
failures = {}
for module in modules:
    for loaded in [name for name in sys.modules if name.partition(".")[0] == "transformer_nb"]:
        del sys.modules[loaded]
    package = types.ModuleType("transformer_nb")  # without what `__init__` imports, in its order
    package.__path__ = [library]
    sys.modules["transformer_nb"] = package
    try:
        importlib.import_module(module)
    except BaseException as error:
        failures[module] = f"{type(error).__name__}: {error}"
print(json.dumps(failures))
"""


def test_each_module_can_be_imported_first():
    "In a fresh interpreter, before any other module of the package: a circle of imports fails somewhere."
    command = [sys.executable, "-c", IMPORT_ALONE, str(LIBRARY), *MODULES[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    failures = json.loads(done.stdout.splitlines()[-1])
    assert not failures, "\n".join(f"{module}: {error}" for module, error in failures.items())


def test_the_package_can_be_imported():
    subprocess.run([sys.executable, "-c", "import transformer_nb"], check=True)


# Names that mean something else in torch

NAMESPACES = (
    torch,
    torch.nn,
    torch.nn.functional,
    torch.nn.init,
    torch.nn.utils,
    torch.optim,
    torch.autograd,
    torch.utils.data,
    torch.distributions,
)
FORBIDDEN = {  # torch's vocabulary, and what torch users call their variables
    *("Batch", "Callback", "Function", "Loss", "Optimizer", "Sequence", "Shape", "Size"),
    *("Tensor", "Module", "Parameter", "Dataset", "DataLoader", "Sampler", "Transform"),
    *("batch", "device", "dtype", "input", "loss", "mask", "model", "output", "shape", "target"),
    *("backward", "forward", "grad", "parameters", "tensor", "Embedding", "Linear", "Dropout"),
}
SAME_MEANING = {  # names that torch has too, for the same thing
    "LayerNorm": "torch.nn.LayerNorm",
    "RMSNorm": "torch.nn.RMSNorm",
    "Muon": "torch.optim.Muon",
    "scaled_dot_product_attention": "torch.nn.functional.scaled_dot_product_attention",
    "trace": "torch.jit.trace: runs a model and records what it computes",
}


def exported_by(module: str) -> set[str]:
    "The public names of a module: what it lists in `__all__`, and the functions and classes it defines."
    listed = getattr(importlib.import_module(module), "__all__", ())
    return {name for name in (*listed, *defined_in(module)) if public(name)}


def meaning_in_torch(name: str) -> str | None:
    "What a name already stands for among users of torch, if anything."
    if name in SAME_MEANING:
        return None
    for namespace in NAMESPACES:
        value = getattr(namespace, name, None)
        if callable(value) and (getattr(value, "__module__", None) or "torch").startswith("torch"):
            return f"{namespace.__name__}.{name}"
    return "a word of torch" if name in FORBIDDEN else None


@pytest.mark.parametrize("module", **IN_EACH_MODULE)
def test_no_name_means_something_else_in_torch(module):
    taken = {name: meaning_in_torch(name) for name in sorted(exported_by(module))}
    wrong = [f"{module}: {name}: {other}" for name, other in taken.items() if other]
    assert not wrong, "\n".join(wrong)


# What the pages import

PAGES = sorted(p for p in (LIBRARY.parent / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)


def imports_in(page: Path) -> list[tuple[str, str]]:
    "The names that a page imports from the package, with their modules."
    found = []
    for cell in json.loads(page.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and not re.search("^[%!]", source, re.MULTILINE):
            froms = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
            found += [(node.module, name.name) for node in froms for name in node.names]
    return [(module, name) for module, name in found if module.partition(".")[0] == "transformer_nb"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_imports_exists(page):
    wrong = []
    for module, name in imports_in(page):
        if module not in MODULES:
            wrong.append(f"{page.name}: {name}: there is no module {module}")
        elif not hasattr(importlib.import_module(module), name) and f"{module}.{name}" not in MODULES:
            wrong.append(f"{page.name}: {name}: {module} has no such name")
    assert not wrong, "\n".join(wrong)


# Sizes

MOST_LINES = 350
MOST_CODE_OF_A_CHAPTER = 205  # lines that are neither blank nor a comment nor the example of a docstring
LONGER = {"transformer": 310}  # nine classes, whose parameters take a line each


@pytest.mark.parametrize("module", **IN_EACH_MODULE)
def test_a_module_is_short(module):
    code = file_of(module).read_text(encoding="utf-8")
    code = re.sub(r"^__all__ = [\[(].*?[\])]\n", "", code, flags=re.DOTALL | re.MULTILINE)
    lines, most = len(code.splitlines()), MOST_LINES
    if file_of(module).parent == LIBRARY and not module.endswith("__main__"):
        code = re.sub(r'\s*^ *>>> .*?(?=""")', "", code, flags=re.DOTALL | re.MULTILINE)
        lines = len([line for line in code.splitlines() if line.strip() and not line.startswith("#")])
        most = LONGER.get(module.rpartition(".")[2], MOST_CODE_OF_A_CHAPTER)
    assert lines <= most, f"{module}: {lines} lines, at most {most}"
