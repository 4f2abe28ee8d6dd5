"""Pages loaded before a cutover go on asking for the assets of their build: the next release has them too, for a while.

This holds in both directions: after a rollback the release that serves again has those of the withdrawn one. A build's
assets have their content's hash in their names, so those of several builds lie beside each other. How long
those of an earlier build stay counts from when it was replaced. No file says when: a list in the release does.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ..system import files

LIST = (
    ".at-most-one-assets.json"  # path below the assets' directory to the epoch second in which its build was replaced
)


@dataclass(frozen=True)
class Carried:
    """How many assets of other builds ``before`` gave to the release, and how many were left behind as too old."""

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
    # What only this release still has stays in its list: it is carried, and not of its own build.
    listed = {name: since for name, since in own_list.items() if (target / name).is_file()}
    wanted: list[Path] = []
    left = 0
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        name = file.relative_to(source).as_posix()
        since = replaced_at.get(name, now)
        if (target / name).exists() and name not in own_list:
            continue  # the release's own build has made it
        if now - since > keep_s:
            left += 1
            continue
        wanted.append(file)
        listed[name] = max(since, listed.get(name, since))  # the later time counts: until then it was asked for
    if not check_mode:
        if listed != own_list:  # before the files: what a killed attempt has copied must not count as the release's own
            files.write(release / LIST, json.dumps(listed, indent=1) + "\n", 0o644)
        with files.created_as(release):
            for file in wanted:
                _copy(file, target / file.relative_to(source), beside=release)
    return Carried(len(wanted), left)


def _copy(file: Path, place: Path, *, beside: Path) -> None:
    """Copy a file that is not there yet. It appears whole: the release may serve while it is copied.

    Until it is whole it lies ``beside`` the assets, so that nobody ever takes it for one.
    """
    if place.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    part = beside / f".at-most-one-asset.{os.getpid()}.part"
    try:
        shutil.copy2(file, part)
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)


def listed(release: Path) -> Collection[str]:
    """The assets of earlier builds that the release has, as paths below the assets' directory."""
    return _read(release / LIST).keys()


def _read(file: Path) -> dict[str, float]:
    """The list of a release; empty where there is none: then all assets count as its own."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): float(since) for name, since in found.items()} if isinstance(found, dict) else {}
