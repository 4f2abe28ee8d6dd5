"""Pages loaded before a cutover go on asking for the assets of their build: the new release has them too, for a while.

A build's assets have their content's hash in their names, so those of several builds lie beside each other. How long
those of an earlier build stay counts from when it was replaced. No file says when: a list in the release does.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

LIST = (
    ".at-most-one-assets.json"  # path below the assets' directory to the epoch second in which its build was replaced
)


@dataclass(frozen=True)
class Carried:
    """How many assets of earlier builds the release has now, and how many of them were left behind as too old."""

    kept: int
    left: int


def carry(
    before: Path, release: Path, directory: str, keep_s: float, now: float, *, check_mode: bool = False
) -> Carried:
    """Copy the assets of the release ``before`` that ``release`` lacks, and those that it had carried itself.

    ``directory`` is where they lie in a release. What was replaced longer than ``keep_s`` ago is left behind.
    """
    source, target = before / directory, release / directory
    replaced_at, own_list = _read(before / LIST), _read(release / LIST)
    listed: dict[str, float] = {}
    left = 0
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        name = file.relative_to(source).as_posix()
        since = replaced_at.get(name, now)
        if (target / name).exists() and name not in own_list:
            continue  # the new build has made it again: it is its own
        if now - since > keep_s:
            left += 1
            continue
        listed[name] = since
        if not check_mode and not (target / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, target / name)
    if not check_mode:
        (release / LIST).write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
    return Carried(len(listed), left)


def _read(file: Path) -> dict[str, float]:
    """The list of a release; empty where there is none: then all assets count as its own."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): float(since) for name, since in found.items()} if isinstance(found, dict) else {}
