"""What code offers to those who call it: its functions, classes and methods, by their names and arguments."""

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from spillover.data.vulnerability import parse

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Signature:
    """A function, a method or a class.

    Attributes:
        kind: `def`, `async def` or `class`.
        name: with the classes that it stands in: `Account.pay`.
        arguments: of a function: each with how it is passed and whether it may be left out; of a class its bases.
    """

    kind: str
    name: str
    arguments: tuple[str, ...]


def signatures(code: str) -> Counter[Signature] | None:
    """All that code offers, each with how often it is defined; None where it does not parse or nests too deeply.

    What stands inside a function is its own affair and does not count, and neither do the order of definitions,
    decorators, annotations and the values of defaults: a repair may have to change them. Definitions under `if`, `try`,
    `with` or a loop count as those outside.
    """
    tree = parse(code)
    try:
        return None if tree is None else Counter(_offered(tree, ""))
    except RecursionError:
        return None


def same_code(one: str, other: str) -> bool:
    """Whether two codes are alike: of those that parse, but for comments, blank space and how it is laid out."""
    trees = [parse(code) for code in (one, other)]
    try:
        return one == other or (None not in trees and len({ast.dump(tree) for tree in trees if tree is not None}) == 1)
    except RecursionError:
        return False


def _offered(node: ast.AST, inside: str) -> Iterator[Signature]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            kind = "async def" if isinstance(child, ast.AsyncFunctionDef) else "def"
            yield Signature(kind, inside + child.name, tuple(_arguments(child.args)))
        elif isinstance(child, ast.ClassDef):
            yield Signature("class", inside + child.name, tuple(map(ast.unparse, child.bases)))
            yield from _offered(child, f"{inside}{child.name}.")
        elif not isinstance(child, ast.expr):
            yield from _offered(child, inside)


def _arguments(args: ast.arguments) -> Iterator[str]:
    """Each argument, as `f(a, /, b=, *c, d, e=, **f)` would have it."""
    by_place = [*args.posonlyargs, *args.args]
    needed = len(by_place) - len(args.defaults)
    for place, arg in enumerate(by_place):
        way = "/" if place < len(args.posonlyargs) else ""
        yield f"{arg.arg}{way}{'=' if place >= needed else ''}"
    if args.vararg is not None:
        yield f"*{args.vararg.arg}"
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        yield f"*,{arg.arg}{'' if default is None else '='}"
    if args.kwarg is not None:
        yield f"**{args.kwarg.arg}"
