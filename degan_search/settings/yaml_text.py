"""Reads settings from YAML: plain values only, no key twice, numbers such as 1e-2, aliases within a limit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from degan_search.system import untrusted
from degan_search.system.errors import UserError, visible

MAX_BYTES = 1_000_000
"""Of a file; and, where it has aliases, about as many characters as it may have with these written out."""
MAX_DEPTH = 50
_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """Also takes for a number what only later versions of YAML do: 1e-2 and 1.5e3."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"), list("-+.0123456789")
)


def read(path: Path, what: str) -> Any:
    """Return a YAML file's content; `what` names it in messages.

    Raises:
        UserError: no such file, too large, no text, or as `parse`.
    """
    try:
        if not path.exists():
            raise UserError(f"{what} does not exist")
        text = untrusted.read(path, what, MAX_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:  # OSError: a name that no file system allows
        raise UserError(f"{what} cannot be read as text: {error}") from None
    return parse(text, what)


def parse(text: str, what: str) -> Any:
    """Return YAML as text keys, lists, text, numbers, booleans and nulls; `what` names it in messages.

    Raises:
        UserError: not YAML, a key twice, aliases that lead to themselves or stand for too much, a value of another
            kind, such as a date, or control characters in text.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_aliases(node, what)
        _check_keys(node, what, set())
        value = loader.construct_document(node)
        _check(value, what)
    except UserError:
        raise
    except RecursionError:
        raise UserError(f"{what} is nested too deeply") from None
    except Exception as error:  # PyYAML also raises errors that are not its own, as for a wrong tag (!!int "")
        raise UserError(f"{what} is not YAML: {' '.join(str(error).split()) or repr(error)}") from None
    return value


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _check_aliases(root: yaml.Node, what: str) -> None:
    """Refuse aliases within what they name, and those with which a few lines would stand for gigabytes."""
    lengths: dict[int, int | None] = {}  # with aliases written out; None while a node's parts are being counted
    aliases = False

    def length(node: yaml.Node) -> int:
        nonlocal aliases
        known = lengths.get(id(node), 0)
        if known is None:
            line = node.start_mark.line + 1
            raise UserError(f"{what}: aliases (*name) must not stand within what they name, as in line {line}")
        if known:
            aliases = True
            return known
        lengths[id(node)] = None
        own = len(node.value) if isinstance(node, yaml.ScalarNode) else 0
        found = lengths[id(node)] = 1 + own + sum(map(length, _children(node)))
        return found

    if length(root) > MAX_BYTES and aliases:
        raise UserError(f"{what} is longer than {MAX_BYTES:,} characters with its aliases (*name) written out")


def _check_keys(node: yaml.Node, what: str, seen: set[int], depth: int = 0) -> None:
    """Refuse a mapping that sets something twice: by the same key, or by `gan.steps` beside `gan: {steps: 1}`."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if depth > MAX_DEPTH:
        raise UserError(f"{what} is nested too deeply")
    for child in _children(node):
        _check_keys(child, what, seen, depth + 1)
    if not isinstance(node, yaml.MappingNode):
        return
    keys: dict[str, yaml.Node] = {}
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:  # what << brings is there to be changed
            if key.value in keys:
                raise UserError(_twice(what, key.value, keys[key.value], key))
            keys[key.value] = key
    if any("." in name for name in keys):
        _lay(node, {}, what, "", merged=False)


def _lay(node: yaml.MappingNode, tree: dict[str, Any], what: str, prefix: str, merged: bool = True) -> None:
    """Enter what a mapping sets into a tree of its settings, whose leaves are nodes; refuse what is there already."""
    for key, value in _entries(node, merged).values():
        *groups, last = key.value.split(".")
        into = tree
        for group in groups:
            into = into.setdefault(group, {})
            if isinstance(into, yaml.Node):
                raise UserError(_twice(what, prefix + key.value, into, key))
        below = into.setdefault(last, {} if isinstance(value, yaml.MappingNode) else key)
        if isinstance(value, yaml.MappingNode) and isinstance(below, dict):
            _lay(value, below, what, f"{prefix}{key.value}.")
        elif below is not key and (other := _any_leaf(below)):
            raise UserError(_twice(what, prefix + key.value, other, key))


def _entries(node: yaml.MappingNode, merged: bool) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """Return a mapping's keys with nodes of key and value; `merged`: with those that << brings."""
    found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for key, value in node.value if merged else ():
        if key.tag == _MERGE:
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if isinstance(source, yaml.MappingNode):
                    found = _entries(source, merged) | found
    own = {key.value: (key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)}
    return found | {name: entry for name, entry in own.items() if entry[0].tag != _MERGE}


def _any_leaf(tree: dict[str, Any] | yaml.Node) -> yaml.Node | None:
    if isinstance(tree, yaml.Node):
        return tree
    return next((leaf for part in tree.values() if (leaf := _any_leaf(part))), None)


def _twice(what: str, name: str, first: yaml.Node, second: yaml.Node) -> str:
    lines = sorted(node.start_mark.line + 1 for node in (first, second))
    return f"{what}: {name!r} is set twice, in line {lines[0]} and in line {lines[1]}; remove one of them"


def _check(value: Any, place: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise UserError(f"{place}: key {key!r} must be text; put it in quotes")
            _check(key, place)
            _check(inner, f"{place}: {key}")
    elif isinstance(value, list):
        for inner in value:
            _check(inner, place)
    elif isinstance(value, str) and visible(value) != value:
        raise UserError(f"{place} = {value!r} holds control characters")
    elif not isinstance(value, bool | int | float | str | None):
        raise UserError(f"{place} = {value}: {type(value).__name__} is no setting; put text in quotes")
