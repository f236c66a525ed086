"Every public name explains itself: what it does, what each argument means, and an example, which is run."

import ast
import doctest
import inspect
import re
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import transformer_nb
from transformer_nb.config.docstrings import document_arguments, parameter_comments, with_arguments

PUBLIC = [name for name in transformer_nb.__all__ if callable(getattr(transformer_nb, name))]


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_of_a_public_name_runs(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    value = getattr(transformer_nb, name)
    names = {"torch": torch, **{name: getattr(transformer_nb, name) for name in transformer_nb.__all__}}
    (example,) = [test for test in doctest.DocTestFinder(recurse=False).find(value, name, module=False, globs=names)]
    assert example.examples, f"{name} has no example: add one after `>>> ` to its docstring"
    torch.manual_seed(0)
    torch.set_printoptions(profile="default")  # pages that other tests run may have changed them
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example)
    assert result.failed == 0, capsys.readouterr().out


@pytest.mark.parametrize("name", PUBLIC)
def test_each_argument_of_a_public_name_is_explained(name):
    value = getattr(transformer_nb, name)
    function = value.__init__ if isinstance(value, type) else value
    parameters = [p for p in inspect.signature(function).parameters if p not in ("self", "cls", "args", "kwargs")]
    document_arguments(value)
    silent = [p for p in parameters if not re.search(rf"^    {p}( \(.+\))?: ", value.__doc__, re.MULTILINE)]
    assert not silent, f"{name} does not say what {', '.join(silent)} means: add a comment after the parameter"


def test_an_editor_completes_all_public_names_without_running_the_package():
    jedi = pytest.importorskip("jedi")  # what IPython and many editors ask
    project = jedi.Project(Path(transformer_nb.__file__).parents[1])
    offered = jedi.Script("import transformer_nb\ntransformer_nb.", project=project).complete()
    assert set(transformer_nb.__all__) <= {one.name for one in offered}
    (signature,) = jedi.Script("from transformer_nb import generate\ngenerate(", project=project).get_signatures()
    assert [one.name for one in signature.params] == list(inspect.signature(transformer_nb.generate).parameters)
    assert "max_new_tokens: int" in signature.to_string() and "Continues prompts" in signature.docstring()


def test_the_docstring_of_the_package_is_a_map_of_two_screens_whose_calls_are_right():
    calls = re.findall(r"^    (\w+.*?\)) {2,}", transformer_nb.__doc__, re.MULTILINE)
    assert len(calls) > 9 and len(transformer_nb.__doc__.splitlines()) <= 80
    for call in map(lambda text: ast.parse(text, mode="eval").body, calls):
        function = eval(ast.unparse(call.func), {name: getattr(transformer_nb, name) for name in PUBLIC})
        inspect.signature(function).bind(*call.args)
        given = {one.id for one in call.args if isinstance(one, ast.Name)}
        assert given <= set(inspect.signature(function).parameters), ast.unparse(call)


def test_comments_are_found_whatever_stands_between():
    def function(
        a: dict[str, int],  # first # with a hash
        d: int = 3,  # second
        e: int = 4,  # third
        *rest: int,  # others
        b: tuple[int, str] = (1, "# no comment"),
        f: str = "ä", g: str = "é",  # after letters of two bytes
        b2: tuple = (
            1,
            2,
        ),  # of two
        c: str = "x",  # last
        untyped=None,  # anything
        **more: object,  # by name
    ):
        """A function."""

    assert parameter_comments(function) == {
        "a (dict[str, int])": "first # with a hash",
        "d (int = 3)": "second",
        "e (int = 4)": "third",
        "rest (int)": "others",
        'f (str = "ä")': "after letters of two bytes",
        'g (str = "é")': "after letters of two bytes",
        "b2 (tuple = ( 1, 2, ))": "of two",
        'c (str = "x")': "last",
        "untyped": "anything",
        "more (object)": "by name",
    }

    class Pair(NamedTuple):
        left: int  # one
        right: float = 2.0  # the other

    assert parameter_comments(Pair) == {"left (int)": "one", "right (float = 2.0)": "the other"}
    assert with_arguments(None, {}) == "" and with_arguments("Text.", {}) == "Text."
    assert with_arguments("Text.\n\n    >>> f()\n    1\n    ", {"a": "b"}) == "Text.\n\nArguments:\n    a: b\n\n>>> f()\n1"
