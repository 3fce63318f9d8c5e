"""The YAML of a study file as plain values, with the line of every key and a list of what is wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import yaml

KeyPath = tuple[str | int, ...]

DEPTH_MAX = 20
"""Deepest nesting that is read; a study needs five."""
SHOWN_MAX = 80
"""Characters of a value that a message shows."""

_TAG = "tag:yaml.org,2002:"
_TAGS_OF_NODES: dict[type[yaml.Node], frozenset[str]] = {
    yaml.ScalarNode: frozenset(_TAG + name for name in ("str", "int", "float", "bool", "null")),
    yaml.SequenceNode: frozenset({_TAG + "seq"}),
    yaml.MappingNode: frozenset({_TAG + "map"}),
}
_KINDS: dict[type[yaml.Node], str] = {
    yaml.ScalarNode: "a single value",
    yaml.SequenceNode: "a list",
    yaml.MappingNode: "a mapping",
}
_NUMBER_TAGS = frozenset({_TAG + "int", _TAG + "float"})


@dataclass(frozen=True, order=True)
class Problem:
    """One broken rule: where it stands and what to do about it."""

    line: int
    key: str
    message: str


@dataclass
class Document:
    """A study file's values and the line on which each of them stands.

    Attributes:
        values: Plain values; what could not be read is left out.
        lines: Line of each path, the empty path included.
        problems: What could not be read.
    """

    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[KeyPath, int] = field(default_factory=lambda: {(): 1})
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, path: KeyPath, message: str, line: int | None = None) -> None:
        """Note a problem at a path, on its own line or that of the nearest path above it."""
        self.problems.append(Problem(self.line_of(path) if line is None else line, key_text(path), message))

    def line_of(self, path: KeyPath) -> int:
        """Give the line of a path, or of the nearest path above it that the file holds."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines[path]


def key_text(path: KeyPath) -> str:
    """Write a path as messages show it: `space.num_workers`, without positions in lists."""
    return ".".join(shown_key(part) for part in path if isinstance(part, str))


def shown_key(key: str) -> str:
    """Write one key so that it stays on its line and harms no terminal."""
    return cut(key if key and key.isprintable() else repr(key))


def shown(value: Any) -> str:
    """Write a value as the file would spell it, cut where it is long."""
    if value is None:
        return "nothing"
    return cut(str(value).lower() if isinstance(value, bool) else repr(value))


def cut(text: str, limit: int = SHOWN_MAX) -> str:
    """Shorten a text to a limit, with a mark where it was cut."""
    return text if len(text) <= limit else f"{text[:limit]}…"


class _NestingError(yaml.MarkedYAMLError):
    """The document is nested too deeply or refers to its own parts."""


def _refused(event: Any, problem: str) -> _NestingError:
    return _NestingError(problem=problem, problem_mark=event.start_mark)


class _Composer(yaml.SafeLoader):
    """Composes nodes without aliases and to a limited depth, and constructs nothing."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _refused(event, f"aliases are not read, got *{cut(str(event.anchor))}; write the value out")
        if self.depth >= DEPTH_MAX:
            raise _refused(event, f"nesting must be at most {DEPTH_MAX} levels deep; flatten the value")
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def load_document(text: str) -> Document:
    """Read YAML text without constructing any object but plain values.

    Aliases, tags, duplicate keys, several documents and anything but a mapping at the top are
    refused; each refusal is a problem of the document, none is raised.
    """
    document = Document()
    try:
        root = yaml.compose(text, Loader=_Composer)
    except _NestingError as error:
        document.refuse((), str(error.problem), _line(error))
    except yaml.MarkedYAMLError as error:
        document.refuse((), _syntax_message(error), _line(error))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        document.refuse((), f"must be printable text, got character {error.character:#x}; delete it", line)
    else:
        if isinstance(root, yaml.MappingNode):
            document.values = _plain(root, (), document)
        else:
            got = "nothing" if root is None or root.value == "" else _KINDS[type(root)]
            document.refuse(
                (), f"must be a mapping of at least name, dataset and budget, got {got}; write `key: value`"
            )
    return document


def _line(error: yaml.MarkedYAMLError) -> int:
    mark = error.problem_mark or error.context_mark
    return mark.line + 1 if mark else 1


def _syntax_message(error: yaml.MarkedYAMLError) -> str:
    if isinstance(error, yaml.composer.ComposerError) and "another document" in (error.problem or ""):
        return "must hold one document, found another; write one study a file"
    return f"must be YAML, but {error.problem or error.context}; check indentation, colons and quotes"


def _plain(node: yaml.Node, path: KeyPath, document: Document) -> Any:
    """Turn a node into plain values, noting lines and problems on the way."""
    document.lines[path] = node.start_mark.line + 1
    if node.tag not in _TAGS_OF_NODES[type(node)]:
        name = node.tag.removeprefix(_TAG)
        document.refuse(path, f"tags are not read, got {cut(name)!r}; write plain text, quoted where it is needed")
        return None
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*path, index), document) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return _plain_mapping(node, path, document)
    return _plain_scalar(node, path, document)


def _plain_mapping(node: yaml.MappingNode, path: KeyPath, document: Document) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if key_node.tag != _TAG + "str" or not isinstance(key_node, yaml.ScalarNode):
            got = cut(str(key_node.value)) if isinstance(key_node, yaml.ScalarNode) else _KINDS[type(key_node)]
            document.refuse(path, f"keys must be text, got {got}; put the key in quotes", line)
            continue
        key = str(key_node.value)
        if key in values:
            first = document.lines[*path, key]
            document.refuse((*path, key), f"must stand once, stands on line {first} too; delete one of them", line)
            continue
        values[key] = _plain(value_node, (*path, key), document)
        document.lines[*path, key] = line
    return values


def _plain_scalar(node: yaml.Node, path: KeyPath, document: Document) -> Any:
    if node.tag in _NUMBER_TAGS and ":" in node.value:
        return str(node.value)  # YAML 1.1 reads 1:30 as the number 90, which nobody means
    try:
        value = yaml.constructor.SafeConstructor().construct_document(node)
    except (ValueError, KeyError, IndexError):
        document.refuse(path, f"must be a value of its kind, got {cut(str(node.value))!r}; write it plainly")
        return None
    if isinstance(value, float) and not math.isfinite(value):
        document.refuse(path, f"must be a finite number, got {node.value}; write a number")
        return None
    return value
