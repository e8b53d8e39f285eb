"""What users see at the prompt: arguments with their meaning, and examples that could be typed."""

import ast
import inspect
import pydoc

import pytest

import spectramind_nb
from spectramind_nb import _EXAMPLE, _HOME
from spectramind_nb.core.docments import explained


@pytest.mark.parametrize("name", _HOME)
def test_help_says_what_each_argument_means_and_gives_an_example(name):
    thing = getattr(spectramind_nb, name)
    said = pydoc.render_doc(thing, renderer=pydoc.plaintext)
    assert _EXAMPLE[name].split("\n")[0] in said
    for parameter in inspect.signature(thing).parameters.values():
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        assert any(line.strip(" |").startswith(stars + parameter.name) for line in said.split("\n")), parameter.name
    assert getattr(spectramind_nb, name) is thing and thing.__doc__.count("Example\n-------") == 1


@pytest.mark.parametrize("name", _EXAMPLE)
def test_an_example_fits_the_signatures(name):
    """What an example calls takes these arguments."""
    called = [node for node in ast.walk(ast.parse(_EXAMPLE[name])) if isinstance(node, ast.Call)]
    calls = [call for call in called if ast.unparse(call.func).split(".")[0] in _HOME]
    assert calls or name == "Spectrum"
    for call in calls:
        top, *inner = ast.unparse(call.func).split(".")
        thing = getattr(spectramind_nb, top)
        for part in inner:
            thing = getattr(thing, part)
        inspect.signature(thing).bind(*call.args, **{word.arg: word.value for word in call.keywords})


def test_what_has_no_source_keeps_its_docstring():
    code = compile('def f(a):\n    "Says."', "<nowhere>", "exec")
    exec(code, space := {})
    assert explained(space["f"]).__doc__ == "Says."
