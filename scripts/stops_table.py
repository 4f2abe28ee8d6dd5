"""Write the table "Stops after prepare" of docs/faults.md from tests/deploy/stops.yml; --check fails if it differs.

A stop is a message that a module of the phases after prepare can reach: one that stands in its own file, in the action
plugin of the same name, or in a file of the core that one of them imports, directly or not. Each is either a stop, with
its reason, or said elsewhere; one that is in neither list, or in a list and not in the code, is an error here.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from scripts import troubleshooting

ROOT = troubleshooting.ROOT
CORE = ROOT / "module_utils/at_most_one"
LISTS = ROOT / "tests/deploy/stops.yml"
PAGE = ROOT / "docs/faults.md"
BEGIN = "<!-- stops: generated from tests/deploy/stops.yml by `make docs` -->\n"
END = "<!-- end of stops -->"
PHASES = ("cleanup", "migrate", "verify", "pm2_reload", "healthcheck")
KINDS = {
    "meanwhile": "others can change it at any moment",
    "doing": "only the act shows it",
    "again": "prepare asks it too",
    "broken": "nothing known leads to it",
}


def modules(phase: str) -> set[str]:
    """The modules of this project that the tasks of a phase's role start."""
    tasks = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "roles" / phase / "tasks").glob("*.yml"))
    return {path.stem for path in (ROOT / "library").glob("*.py") if re.search(rf"(?m)^\s+{path.stem}:", tasks)}


def files(phase: str) -> set[Path]:
    """The files that such a module consists of, and all that they import of the core."""
    waiting = [ROOT / kind / f"{name}.py" for name in modules(phase) for kind in ("library", "action_plugins")]
    found: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path.exists() and path not in found:
            found.add(path)
            waiting += _imports(path)
    return found


def _imports(path: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                place = path.parents[node.level - 1]
            elif "at_most_one." in f"{node.module}.":
                place = CORE
            else:
                continue
            inside = (
                (node.module or "").rpartition("at_most_one")[2].strip(".") if not node.level else node.module or ""
            )
            place = place.joinpath(*filter(None, inside.split(".")))
            yield place.with_suffix(".py")
            yield from (place / f"{name.name}.py" for name in node.names)


def reachable() -> dict[str, set[str]]:
    """The phases after prepare by the messages that they can reach: identifiers, or where one without it is made."""
    found: dict[str, set[str]] = {}
    places = {phase: {troubleshooting.place(path) for path in files(phase)} for phase in PHASES}
    for message in troubleshooting.messages():
        for phase in PHASES:
            if message.where in places[phase]:
                found.setdefault(message.identifier or message.where, set()).add(phase)
    return found


def faults(lists: dict[str, Any]) -> list[str]:
    """What the two lists and the code do not agree on, in words."""
    there = reachable()
    stops = lists["stops"]
    others = [name for entry in lists["elsewhere"].values() for name in entry["messages"]]
    said = [f"{name} is in both lists." for name in sorted(set(stops) & set(others))]
    said += [
        f"{name} is twice among those that are said elsewhere."
        for name in sorted(set(others))
        if others.count(name) > 1
    ]
    said += [f"{name} can be reached and is in no list." for name in sorted(set(there) - set(stops) - set(others))]
    said += [f"{name} cannot be reached." for name in sorted((set(stops) | set(others)) - set(there))]
    for name in sorted(set(stops) & set(there)):
        if set(stops[name]) != {"phases", "kind", "why"}:
            said.append(f"{name} has the keys {', '.join(stops[name])}.")
        if stops[name]["kind"] not in KINDS:
            said.append(f"{name} is of an unknown kind: {stops[name]['kind']}.")
        if beyond := set(stops[name]["phases"]) - there[name]:
            said.append(f"{name} cannot be reached in {', '.join(sorted(beyond))}.")
    return said


def table(lists: dict[str, Any]) -> str:
    """A row for each stop, in the order of the phases."""
    words: dict[str, list[str]] = {}
    for message in troubleshooting.messages():
        words.setdefault(message.identifier or message.where, []).append(
            " ".join(troubleshooting.filled(message.seen).split())
        )
    rows = ["| message | stops in | why not in prepare | |", "|---|---|---|---|"]
    order = {phase: number for number, phase in enumerate(PHASES)}
    for name, stop in sorted(lists["stops"].items(), key=lambda item: (order[item[1]["phases"][0]], item[0])):
        shown = " / ".join(words[name]).replace("|", "\\|")
        label = f"{name} " if troubleshooting.IDENTIFIER.fullmatch(name) else ""
        where = ", ".join(f"`{phase}`" for phase in stop["phases"])
        rows.append(f"| {label}{shown} | {where} | {KINDS[stop['kind']]} | {stop['why']} |")
    return "\n".join(rows) + "\n"


def main() -> int:
    """Replace what stands between the two markers."""
    lists = yaml.safe_load(LISTS.read_text(encoding="utf-8"))
    wrong = faults(lists)
    for fault in wrong:
        print(f"{LISTS.relative_to(ROOT)}: {fault}")
    if wrong:
        return 1
    old = PAGE.read_text(encoding="utf-8")
    head, rest = old.split(BEGIN, 1)
    new = f"{head}{BEGIN}\n{table(lists)}\n{END}{rest.split(END, 1)[1]}"
    if "--check" not in sys.argv:
        PAGE.write_text(new, encoding="utf-8")
    elif new != old:
        print("docs/faults.md is not what tests/deploy/stops.yml says. Expected: its table. Next: make docs")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
