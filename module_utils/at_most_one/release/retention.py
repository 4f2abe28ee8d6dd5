"""Which releases stay: the newest, and each that serves, that may be gone back to, or that somebody works in."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path

from ..errors import OperatorError
from ..findings import observed, say
from ..system.processes import working_directory

MARKER = ".at-most-one.json"  # the phase prepare writes it when the build is complete
_GOING = ".going-"  # the name of a release while it is being removed
_COMMIT = re.compile(r"[0-9a-f]{40}")


def require_free_space(releases: Path, least_mb: int) -> None:
    """Raise OperatorError when fewer than ``least_mb`` megabytes are free where the releases lie."""
    place = next(path for path in (releases, *releases.parents) if path.exists())
    free = shutil.disk_usage(place).free // 1_000_000
    if free < least_mb:
        raise OperatorError(
            observed("AMO-4111", "The disk of {place} has {free} MB left.", place=place, free=free),
            expected=say(
                "at least {least_mb} MB (release_min_free_mb), so that a build cannot fill it under the service.",
                least_mb=least_mb,
            ),
            next_step=say(
                "make room, for example among the releases in {releases}, or lower release_keep.", releases=releases
            ),
        )


def kept(releases: Path) -> list[str]:
    """The commits whose releases are there, in the order of their names; none where the directory is not."""
    if not releases.is_dir():
        return []
    return sorted(path.name for path in releases.iterdir() if _COMMIT.fullmatch(path.name) and path.is_dir())


def surplus(releases: Path, keep: int, needed: Collection[Path]) -> list[Path]:
    """The releases that may go, the oldest first: those beyond the newest ``keep`` that nobody needs or works in."""
    try:
        found = [path for path in releases.iterdir() if _COMMIT.fullmatch(path.name) and path.is_dir()]
    except FileNotFoundError:
        return []
    found = sorted((path for path in found if not path.is_symlink()), key=_age)
    held = {path.resolve() for path in needed} | worked_in(releases)
    return [path for path in found[: -keep or None] if path.resolve() not in held]


def prune(path: str, keep: int, needed: Collection[str], *, check: bool = False) -> list[str]:
    """Remove the surplus of the releases in ``path``; the directories that went. With ``check`` none goes.

    At least one stays.
    """
    releases = Path(path)
    gone = surplus(releases, max(keep, 1), [Path(one) for one in needed])
    if gone and not check:
        remove(releases, gone)
    return [str(path) for path in gone if check or not (path.exists() or _going(path).exists())]


def remove(releases: Path, gone: Collection[Path]) -> None:
    """Remove them, and what an earlier removal has left: each is renamed first, so that none is ever there by half.

    What this account may not remove stays, as :func:`left` says: no cutover is taken back for an old release.
    """
    for path in gone:
        with contextlib.suppress(OSError):
            path.rename(_going(path))
    for path in left(releases):
        shutil.rmtree(path, ignore_errors=True)


def _going(release: Path) -> Path:
    return release.with_name(_GOING + release.name)


def left(releases: Path) -> list[Path]:
    """What was to be removed and is still there; the next removal tries again."""
    return sorted(releases.glob(f"{_GOING}*"))


def _age(release: Path) -> float:
    """When it was built; an adopted checkout or an unfinished build has only its directory's own time."""
    marker = release / MARKER
    return (marker if marker.exists() else release).stat().st_mtime


def worked_in(releases: Path) -> set[Path]:
    """The releases that a process works in, as far as this user may see."""
    below = releases.resolve()
    found = set()
    for entry in os.listdir("/proc"):
        directory = working_directory(int(entry)) if entry.isdigit() else None
        with contextlib.suppress(ValueError, IndexError):
            found.add(below / Path(directory or "/").relative_to(below).parts[0])
    return found
