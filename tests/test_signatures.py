"""Signatures: what of code is its outside, and what may change without changing it."""

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillover.data.signatures import Signature, same_code, signatures

NAMES = ("load", "save", "path", "data", "limit", "user")


def test_functions_methods_and_classes_are_told_by_name_kind_and_arguments():
    code = """
import os
class Store(Base, metaclass=M):
    def get(self, key, /, default=None, *rest, strict, fast=True, **more): pass
    async def put(self): pass
    class Inner: pass
if os.name:
    def start(): pass
"""
    assert signatures(code) == {
        Signature("class", "Store", ("Base",)): 1,
        Signature("def", "Store.get", ("self/", "key/", "default=", "*rest", "*,strict", "*,fast=", "**more")): 1,
        Signature("async def", "Store.put", ("self",)): 1,
        Signature("class", "Store.Inner", ()): 1,
        Signature("def", "start", ()): 1,
    }


BASE = "def f(a, b=1):\n    return a\nclass C(B):\n    def m(self, x): pass\n"
ALIKE = {
    "another body": BASE.replace("return a", "return str(b)"),
    "a helper inside": BASE.replace("    return a", "    def check(z):\n        return z\n    return check(a)"),
    "another default": BASE.replace("b=1", "b=None"),
    "annotations": BASE.replace("a, b=1", "a: int, b: int = 1"),
    "a decorator": "@cache\n" + BASE,
    "an import": "import os\n" + BASE,
    "another order": "class C(B):\n    def m(self, x): pass\ndef f(a, b=1):\n    return a\n",
    "all of it under an if": "if x:\n    " + BASE.replace("\n", "\n    "),
}
OTHER = {
    "another name": BASE.replace("def f", "def g"),
    "another argument": BASE.replace("(a, b=1)", "(a, c=1)"),
    "an argument more": BASE.replace("(a, b=1)", "(a, b=1, c=2)"),
    "an argument that must be given": BASE.replace("b=1", "b"),
    "arguments in another order": BASE.replace("(a, b=1)", "(b, a=1)"),
    "by keyword alone": BASE.replace("(a, b=1)", "(a, *, b=1)"),
    "another base": BASE.replace("C(B)", "C(D)"),
    "async": "async " + BASE,
    "a method gone": BASE.replace("    def m(self, x): pass", "    y = 1"),
    "a function more": BASE + "def g(): pass\n",
    "defined twice": BASE + "def f(a, b=1): pass\n",
    "a method made a function": BASE.replace("    def m", "    pass\ndef m"),
}


@pytest.mark.parametrize("name", ALIKE)
def test_what_callers_do_not_see_may_change(name):
    assert signatures(ALIKE[name]) == signatures(BASE)


@pytest.mark.parametrize("name", OTHER)
def test_what_callers_see_may_not_change(name):
    assert signatures(OTHER[name]) != signatures(BASE)


def test_what_does_not_parse_has_none_and_what_nests_too_deeply_is_no_error():
    assert signatures("def f(:") is None and signatures("") is None
    chain = "if a:\n    pass\n" + "elif a:\n    pass\n" * 3000
    assert signatures(chain) in (None, {})
    assert not same_code(chain, "x = 1")


@st.composite
def functions(draw):
    """A function as its parts: name, arguments of all kinds, async or not."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=0, max_size=4))
    cut = draw(st.integers(0, len(names)))
    defaults = draw(st.integers(0, cut))
    return draw(st.sampled_from(NAMES)), names[:cut], names[cut:], defaults, draw(st.booleans())


def written(function, body="pass"):
    name, by_place, by_name, defaults, is_async = function
    places = [f"{arg}=0" if n >= len(by_place) - defaults else arg for n, arg in enumerate(by_place)]
    args = ", ".join([*places, *(["*", *by_name] if by_name else [])])
    return f"{'async ' * is_async}def {name}({args}):\n    {body}\n"


@settings(max_examples=150)
@given(st.lists(functions(), max_size=5), st.randoms(use_true_random=False))
def test_signatures_survive_reordering_other_bodies_and_laying_out_anew(some, rng):
    code = "x = 1\n" + "".join(map(written, some))
    shuffled = rng.sample(some, len(some))
    other = "import os\n" + "".join(written(one, "return os.getcwd()") for one in shuffled)
    assert signatures(code) == signatures(other) == signatures(ast.unparse(ast.parse(code)))
    assert sum(signatures(code).values()) == len(some)


@settings(max_examples=150)
@given(functions(), functions())
def test_functions_have_equal_signatures_just_where_their_heads_are_equal(one, other):
    assert (signatures(written(one)) == signatures(written(other))) == (written(one) == written(other))


@settings(max_examples=100)
@given(st.text(alphabet="def(x):\n\t pasclwith,=*/'\"#@"), st.text(max_size=20))
def test_no_text_makes_the_comparison_fail(text, other):
    assert signatures(text) == signatures(text)
    assert same_code(text, text)
    assert same_code(text, other) == same_code(other, text)


def test_comments_blank_space_and_layout_make_no_other_code():
    one = "def f(a):\n    # why\n    return (a +\n            1)\n"
    assert same_code(one, "def f(a): return a + 1")
    assert not same_code(one, "def f(a): return a + 2")
    assert not same_code("def f(:", "def f(: ")
