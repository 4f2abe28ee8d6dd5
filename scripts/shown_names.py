"""The names of plays and tasks that a person sees while a run goes on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
PLACES = ("playbooks/*.yml", "roles/*/tasks/*.yml", "roles/*/handlers/*.yml")
SPECIFICATIONS = ("roles/*/meta/argument_specs.yml",)
INSIDE = ("pre_tasks", "tasks", "post_tasks", "handlers", "block", "rescue", "always")
# What stands there is replaced by its content before the run begins, so that its name is never shown.
REPLACED = frozenset(
    [
        "block",
        *(f"{prefix}import_{kind}" for prefix in ("", "ansible.builtin.") for kind in ("playbook", "role", "tasks")),
    ]
)
NUMBERS = re.compile(r"\(\d+/\d+\) ")
Name = tuple[str, str]  # play or task, and what it is called


def names(root: Path = ROOT) -> dict[Name, list[str]]:
    """Each name behind its context in the catalogue (play or task), with the files that have it."""
    found: dict[Name, list[str]] = {}
    readers: Sequence[tuple[Sequence[str], Callable[[Any], Iterator[Name]]]] = (
        (PLACES, of),
        (SPECIFICATIONS, of_specifications),
    )
    for patterns, read in readers:
        for path in sorted(path for pattern in patterns for path in root.glob(pattern)):
            where = path.relative_to(root).as_posix()
            for name in read(yaml.safe_load(path.read_text(encoding="utf-8")) or []):
                places = found.setdefault(name, [])
                if where not in places:
                    places.append(where)
    return found


def of(entries: Sequence[dict[str, Any]]) -> Iterator[Name]:
    """The names of plays or tasks, in their order. A play is shown with its number, and translated without it."""
    for entry in entries:
        if "hosts" in entry:
            yield "play", NUMBERS.sub("", entry["name"])
        elif not REPLACED & entry.keys() and "name" in entry:
            yield "task", entry["name"]
        for inside in INSIDE:
            yield from of(entry.get(inside) or [])


def of_specifications(specifications: Mapping[str, Any]) -> Iterator[Name]:
    """The names that Ansible gives the task by which it checks the arguments of a role, one for each entry point."""
    for entry_point, specification in specifications["argument_specs"].items():
        about = f" - {specification['short_description']}" if "short_description" in specification else ""
        yield "task", f"Validating arguments against arg spec '{entry_point}'{about}"
