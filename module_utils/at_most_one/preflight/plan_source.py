"""The file of a plan: its content, and all that is wrong with it, each with its line. Only the control node asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from .. import plan
from ..findings import observed, say
from ..plan import Fault, Place

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # fifteen files in each run: libyaml is ten times as fast


@dataclass(frozen=True)
class LineFault:
    """One fault as a person reads it, in whole sentences."""

    line: int
    key: str
    seen: str
    expected: str


@dataclass(frozen=True)
class Source:
    """What the file holds, and its faults in the order of their lines. With a fault the content does not count."""

    content: Any
    faults: tuple[LineFault, ...]
    root: yaml.Node | None = None

    def located(self, faults: Iterable[Fault]) -> tuple[LineFault, ...]:
        """The faults in the order of their lines."""
        found = (
            LineFault(
                _line(self.root, fault.place),
                fault.key,
                observed("AMO-2343", "{key} is {seen}.", key=fault.key, seen=fault.seen),
                say("{expected}.", expected=fault.expected),
            )
            for fault in faults
        )
        return tuple(sorted(found, key=lambda fault: fault.line))


def read(path: Path) -> Source:
    """The plan of this file, whose name has to be the plan's id."""
    lines = 1
    try:
        text = path.read_text(encoding="utf-8")
        lines += text.rstrip().count("\n")
        loader = LOADER(text)
        try:
            root = loader.get_single_node()
            repeated = [*_repeated(root, ())]  # before a merge (<<) is resolved into the mapping that overrides it
            content: Any = None if root is None else loader.construct_document(root)
            if isinstance(values := _at(_at(root, "surplus"), "values"), yaml.MappingNode):
                content["surplus"]["values"] = {key.value: _as_written(loader, value) for key, value in values.value}
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a day that no month has
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or " ".join(str(error).split())
        seen = observed("AMO-2344", "the file cannot be read as YAML: {said}.", said=said)
        line = min(mark.line + 1, lines) if mark else 1  # the end of the file is behind its last line
        return Source(None, (LineFault(line, "(file)", seen, say("YAML in UTF-8.")),))
    faults = [*repeated, *plan.faults(content)]
    if isinstance(content, dict) and content.get("id") not in (None, path.stem):
        faults.append(Fault(("id",), repr(content["id"]), say("{name}, the name of its file", name=path.stem)))
    if "@" in path.stem:
        faults.append(Fault(("id",), repr(path.stem), say("a name without @, behind which commands name a tenant")))
    source = Source(content, (), root)
    return replace(source, faults=source.located(faults))


def _repeated(node: yaml.Node | None, place: Place) -> Iterator[Fault]:
    """Keys that one mapping has twice: YAML would keep the last one without a word."""
    if isinstance(node, yaml.SequenceNode):
        for number, entry in enumerate(node.value):
            yield from _repeated(entry, (*place, number))
    elif isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            name = str(key.value)
            if name in first:
                yield Fault(
                    (*place, name), say("there twice, first in line {first}", first=first[name]), say("each key once")
                )
            first.setdefault(name, key.start_mark.line + 1)
            yield from _repeated(value, (*place, name))


def _as_written(loader: Any, node: yaml.Node) -> Any:
    """A value for surplus rows: its text where YAML reads something else, no as False, 010 as 8 or a day as an object.

    PostgreSQL gets it as a text.
    """
    read = loader.construct_object(node, deep=True)
    if not isinstance(node, yaml.ScalarNode) or read is None:
        return read
    same = isinstance(read, (str, int, float)) and str(read).lower() == node.value.lower()
    return read if same else node.value


def _pair(node: yaml.Node | None, key: str) -> tuple[yaml.Node, yaml.Node] | None:
    """A key of a mapping and its value, of a key that is there twice the last."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((pair for pair in reversed(pairs) if pair[0].value == key), None)


def _at(node: yaml.Node | None, key: str) -> yaml.Node | None:
    pair = _pair(node, key)
    return pair[1] if pair else None


def _line(root: yaml.Node | None, place: Place) -> int:
    """The line of the value at this place; where it is missing, that of the mapping or the list it belongs to."""
    node, line = root, 1 if root is None else root.start_mark.line + 1
    for part in place:
        inside = _pair(node, str(part))
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            inside = (node.value[part], node.value[part])
        if inside is None:
            return line
        line, node = inside[0].start_mark.line + 1, inside[1]
    return line
