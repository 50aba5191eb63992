"""Operators that break one named piece of the code, and what puts them to work.

A piece is addressed by the name of its module and its qualified name: a function, a class, or a
constant. An operator picks places in it by the words that they mention, and changes all that fit.
So a mutant outlives moved lines and most renamed locals; and if its address or its words are gone,
`NoSuchPlace` says which.

Why no library: mutmut and cosmic-ray number the mutations that they find in a function, so one
promise cannot be tied to one of them, and the numbers change with each edit.

*Words* of a place are the names and attributes in it, its numbers, its texts, and each word of a
text. `near` narrows an operator to the smallest statements that mention those words.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TypeVar

PACKAGE = Path(__file__).resolve().parent.parent / "nocookie"

#: What is replaced, from (line, byte) to (line, byte), and by what.
Edit = tuple[tuple[int, int], tuple[int, int], str]
#: Finds in a piece, whose source is given too, what is to be replaced.
Operator = Callable[[ast.AST, bytes], list[Edit]]
Words = tuple[str, ...]
Node = TypeVar("Node", bound=ast.AST)


class NoSuchPlace(Exception):
    """An address, or the words of an operator, lead to nothing in the code as it is now."""


def mutated(module: str, name: str, operator: Operator) -> str:
    """Return the source of a module ("stores/file.py") with *operator* applied to what is called
    *name* in it ("" for the whole module). Raises `NoSuchPlace`."""
    source, tree = _parsed(module)
    edits = operator(_resolved(tree, name, module), source)
    if not edits:
        raise NoSuchPlace(f"{module}: nothing in {name or 'it'} fits the words of the operator")
    lines = [0]
    for line in source.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    text, last = source, len(source) + 1
    for begin, end, new in sorted(edits, reverse=True):
        at, to = lines[begin[0] - 1] + begin[1], lines[end[0] - 1] + end[1]
        if to <= last:
            text, last = text[:at] + new.encode() + text[to:], at
    if text == source:
        raise NoSuchPlace(f"{module}: the operator changes nothing in {name or 'it'}")
    ast.parse(text)
    return text.decode()


# --- Operators. ---


def condition(new: str, *words: str, near: Words = ()) -> Operator:
    """The smallest conditions with these words become *new*; {} in it is what was there."""

    def edits(piece: ast.AST, source: bytes) -> list[Edit]:
        return [
            _edit(node, f"({new.format(_text(node, source))})")
            for node in _smallest(_conditions(piece), piece, words, near)
        ]

    return edits


def never(*words: str, near: Words = ()) -> Operator:
    """The smallest conditions with these words are evaluated, and do not hold."""
    return condition("({}) and False", *words, near=near)


def always(*words: str, near: Words = ()) -> Operator:
    """The smallest conditions with these words are evaluated, and hold."""
    return condition("({}) or True", *words, near=near)


def instead(new: str, *words: str, near: Words = ()) -> Operator:
    """*new* is done instead of the simple statements with these words."""

    def edits(piece: ast.AST, source: bytes) -> list[Edit]:
        simple = [node for node in _all(piece, ast.stmt) if not hasattr(node, "body")]
        return [_edit(node, new) for node in _smallest(simple, piece, words, near)]

    return edits


def drop(*words: str, near: Words = ()) -> Operator:
    """The simple statements with these words are left out."""
    return instead("pass", *words, near=near)


def preceded(new: str, *words: str) -> Operator:
    """*new* is done before the simple statements with these words."""

    def edits(piece: ast.AST, source: bytes) -> list[Edit]:
        simple = [node for node in _all(piece, ast.stmt) if not hasattr(node, "body")]
        return [
            _edit(node, f"{new}; {_text(node, source)}")
            for node in _smallest(simple, piece, words, ())
        ]

    return edits


def returns(new: str, *words: str, near: Words = ()) -> Operator:
    """What is returned with these words becomes *new*."""
    return lambda piece, source: [
        _edit(node, f"return {new}")
        for node in _smallest(_all(piece, ast.Return), piece, words, near)
    ]


def body(new: str) -> Operator:
    """The function does *new*, one statement, and nothing else."""

    def edits(piece: ast.AST, source: bytes) -> list[Edit]:
        assert isinstance(piece, ast.FunctionDef)
        return [(_edit(piece.body[0], "")[0], _edit(piece.body[-1], "")[1], new)]

    return edits


def call(name: str, new: str, near: Words = ()) -> Operator:
    """Calls of what has this name become the expression *new*."""
    return lambda piece, source: [_edit(node, new) for node in _calls(piece, name, near)]


def unwrapped(name: str) -> Operator:
    """Calls of what has this name become their first argument: `list(x)` becomes `x`."""
    return lambda piece, source: [
        _edit(node, _text(node.args[0], source)) for node in _calls(piece, name)
    ]


def direct(name: str) -> Operator:
    """What is called by way of this name is called: `context.run(f, x)` becomes `f(x)`."""

    def edits(piece: ast.AST, source: bytes) -> list[Edit]:
        return [
            _edit(node, f"{_text(node.args[0], source)}({_joined(node.args[1:], source)})")
            for node in _calls(piece, name)
        ]

    return edits


def without_argument(name: str, position: int) -> Operator:
    """Calls of what has this name lack the argument at this position."""

    def edits(piece: ast.AST, source: bytes) -> list[Edit]:
        found: list[Edit] = []
        for node in _calls(piece, name):
            if len(node.args) > position:
                kept = [*node.args[:position], *node.args[position + 1 :]]
                found.append(_edit(node, f"{_text(node.func, source)}({_joined(kept, source)})"))
        return found

    return edits


def keyword(name: str, new: str) -> Operator:
    """Where an argument is given by this name, it is *new*."""
    return lambda piece, source: [
        _edit(node.value, new) for node in _all(piece, ast.keyword) if node.arg == name
    ]


def constant(old: object, new: object) -> Operator:
    """The constant *old* is *new*."""
    return lambda piece, source: [
        _edit(node, repr(new))
        for node in _all(piece, ast.Constant)
        if type(node.value) is type(old) and node.value == old
    ]


def text(old: str, new: str) -> Operator:
    """In texts, *old* is *new*: for what is written in another language, SQL or Lua."""
    return lambda piece, source: [
        _edit(node, repr(node.value.replace(old, new)))
        for node in _all(piece, ast.Constant)
        if isinstance(node.value, str) and old in node.value
    ]


def value(new: str) -> Operator:
    """What is assigned to the name is *new*."""

    def edits(piece: ast.AST, source: bytes) -> list[Edit]:
        assert isinstance(piece, ast.Assign | ast.AnnAssign) and piece.value is not None
        return [_edit(piece.value, new)]

    return edits


def expression(new: str, *words: str) -> Operator:
    """The smallest operations with these words, as `a % b`, become *new*."""
    return lambda piece, source: [
        _edit(node, new) for node in _smallest(_all(piece, ast.BinOp), piece, words, ())
    ]


def catches(new: str, *words: str) -> Operator:
    """Where what these words name is caught, only *new* is."""
    return lambda piece, source: [
        _edit(node.type, new)
        for node in _all(piece, ast.ExceptHandler)
        if node.type is not None and _mentions(node.type, words)
    ]


def no_with(*words: str) -> Operator:
    """What is done in a context with these words is done without it."""
    return lambda piece, source: [
        (_edit(node, "")[0], _edit(node.items[-1].context_expr, "")[1], "if True")
        for node in _all(piece, ast.With)
        if any(_mentions(item, words) for item in node.items)
    ]


def apart(*words: str) -> Operator:
    """An `elif` with these words in its condition is done in any case."""
    return lambda piece, source: [
        (_edit(node, "")[0], _edit(node.test, "")[1], "if True")
        for node in _all(piece, ast.If)
        if _text(node, source).startswith("elif") and _mentions(node.test, words)
    ]


def once(*words: str) -> Operator:
    """A `while` with these words in its condition goes round once."""
    return lambda piece, source: [
        (
            _edit(node, "")[1],
            _edit(node, "")[1],
            "\n" + " " * node.body[0].col_offset + "break",
        )
        for node in _all(piece, ast.While)
        if _mentions(node.test, words)
    ]


# --- How places are found. ---


@cache
def _parsed(module: str) -> tuple[bytes, ast.Module]:
    path = PACKAGE / module
    if not path.is_file():
        raise NoSuchPlace(f"there is no module {module}")
    source = path.read_bytes()
    return source, ast.parse(source)


def _resolved(tree: ast.Module, name: str, module: str) -> ast.AST:
    piece: ast.AST = tree
    for part in filter(None, name.split(".")):
        found = list(_named(piece, part))
        if len(found) != 1:
            raise NoSuchPlace(f"{module}: {len(found)} things are called {part} ({name})")
        piece = found[0]
    return piece


def _named(piece: ast.AST, name: str) -> Iterator[ast.AST]:
    if isinstance(piece, ast.Assign | ast.AnnAssign):  # a dict: by its key
        if isinstance(piece.value, ast.Dict):
            for key, given in zip(piece.value.keys, piece.value.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == name:
                    yield given
        return
    for node in ast.iter_child_nodes(piece):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            if node.name == name:
                yield node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                yield node
        elif isinstance(node, ast.stmt | ast.ExceptHandler):
            yield from _named(node, name)


def _all(piece: ast.AST, kind: type[Node]) -> list[Node]:
    """Return the nodes of this kind, but for what is in f-strings, which say no exact place."""
    found: list[Node] = []
    left = [piece]
    while left:
        node = left.pop()
        if isinstance(node, kind):
            found.append(node)
        if not isinstance(node, ast.JoinedStr):
            left += ast.iter_child_nodes(node)
    return found


def _conditions(piece: ast.AST) -> list[ast.expr]:
    tests = [
        node.test for node in ast.walk(piece) if isinstance(node, ast.If | ast.While | ast.IfExp)
    ]
    operands = [part for node in _all(piece, ast.BoolOp) for part in node.values]
    # What `a or b` gives is not always meant as a truth; where it is compared, it is.
    return [*tests, *operands, *_all(piece, ast.Compare)]


def _calls(piece: ast.AST, name: str, near: Words = ()) -> list[ast.Call]:
    return [
        node
        for node in _smallest(_all(piece, ast.Call), piece, (), near)
        if (isinstance(node.func, ast.Name) and node.func.id == name)
        or (isinstance(node.func, ast.Attribute) and node.func.attr == name)
    ]


def _smallest(nodes: list[Node], piece: ast.AST, words: Words, near: Words) -> list[Node]:
    """Return those nodes that mention the words and have no such node inside."""
    if near:
        places = _smallest(_all(piece, ast.stmt), piece, near, ())
        inside = {id(node) for place in places for node in ast.walk(place)}
        nodes = [node for node in nodes if id(node) in inside]
    if not words:
        return nodes
    fitting = {id(node): node for node in nodes if _mentions(node, words)}
    return [
        node
        for node in fitting.values()
        if not any(id(part) in fitting for part in ast.walk(node) if part is not node)
    ]


def _mentions(piece: ast.AST, words: Words) -> bool:
    mentioned: set[str] = set()
    for node in ast.walk(piece):
        if isinstance(node, ast.Name):
            mentioned.add(node.id)
        elif isinstance(node, ast.Attribute):
            mentioned.add(node.attr)
        elif isinstance(node, ast.keyword) and node.arg:
            mentioned.add(node.arg)
        elif isinstance(node, ast.Constant):
            said = node.value
            said = said.decode("latin-1") if isinstance(said, bytes) else str(said)
            mentioned |= {said, *re.findall(r"[\w-]+", said)}
    return mentioned.issuperset(words)


def _edit(node: ast.AST, new: str) -> Edit:
    assert isinstance(node, ast.stmt | ast.expr)
    assert node.end_lineno is not None and node.end_col_offset is not None
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset), new


def _text(node: ast.AST, source: bytes) -> str:
    begin, end, _ = _edit(node, "")
    lines = source.splitlines(keepends=True)[begin[0] - 1 : end[0]]
    lines[-1] = lines[-1][: end[1]]
    lines[0] = lines[0][begin[1] :]
    return b"".join(lines).decode()


def _joined(nodes: list[ast.expr], source: bytes) -> str:
    return ", ".join(_text(node, source) for node in nodes)
