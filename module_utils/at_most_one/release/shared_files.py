"""Find what a release has already; let it have the files that git does not have and every release shares.

While the application is deployed in place its own files are the true ones; from then on those beside the releases are.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import OperatorError
from ..findings import observed, say
from ..http.build_probe import require_files
from ..system import files
from . import retention
from .link import require_switchable

_DIRECTORY, _FILE = 0o700, 0o600  # they hold the service's passwords


@dataclass(frozen=True)
class Found:
    """What a release has already: its finished build, its shared files."""

    built: bool
    shared: bool


@dataclass(frozen=True)
class Linked:
    """What was changed, or would be: the files copied beside the releases, the links made in the release."""

    release: Path
    shared: Path  # the directory of the shared files
    directory: bool  # whether it was made, or closed to others
    copied: tuple[str, ...]
    linked: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether anything was."""
        return bool(self.directory or self.copied or self.linked)

    @property
    def described(self) -> str:
        """One line for each file and each link, for a diff."""
        lines = [f"{self.shared / name}\n" for name in self.copied]
        return "".join([*lines, *(f"{self.release / name} -> {self.shared / name}\n" for name in self.linked)])


def inspect(path: Path, releases: Path, release: Path, names: Sequence[str], min_free_mb: int = 0) -> Found:
    """Look at ``release`` before anything is touched.

    ``path`` is the application's path, ``releases`` the directory of the releases. Raises OperatorError when a shared
    file is nowhere, when the path cannot be made a link, when a finished build has lost files since, or when the disk
    is too full for a new one.
    """
    _require(path, releases, names)
    built = (release / retention.MARKER).is_file()
    if release.resolve() != path.resolve():  # what serves is neither built again nor judged by its files
        require_switchable(path, releases)
        if built:
            require_files(release)
        else:
            retention.require_free_space(releases, min_free_mb)
    return Found(built, all((release / name).exists() for name in names))


def link(
    path: Path, releases: Path, release: Path, names: Sequence[str], *, in_place: bool, check_mode: bool = False
) -> Linked:
    """Let each of ``names`` in ``release`` be a link to the file beside the releases, copied there from ``path``.

    ``in_place``: ``path`` is no link yet, and its files replace those beside the releases. Raises OperatorError when a
    file is nowhere, or when the release has one of its own in the place of the link.
    """
    _require(path, releases, names)
    _refuse_own(release, names)
    shared = releases / "shared"
    opened = not shared.is_dir() or _mode(shared) != _DIRECTORY
    copied = tuple(
        name
        for name in names
        if (path / name).is_file()
        and (in_place or not (shared / name).is_file())
        and not _is_copy(path / name, shared / name)
    )
    linked = tuple(name for name in names if not _leads_to(release / name, shared / name))
    if not check_mode:
        if opened:
            files.directory(releases, 0o755)
            shared.mkdir(exist_ok=True)
            shared.chmod(_DIRECTORY)
        for name in copied:
            (shared / name).parent.mkdir(parents=True, exist_ok=True)
            files.write(shared / name, (path / name).read_bytes(), _FILE)
        with files.created_as(release):
            for name in linked:
                _link(release / name, shared / name)
    return Linked(release, shared, opened, copied, linked)


def _require(path: Path, releases: Path, names: Sequence[str]) -> None:
    """Raise OperatorError when one of the files is nowhere."""
    missing = [name for name in names if not any((one / name).is_file() for one in (path, releases / "shared"))]
    if missing:
        there = sorted(one.name for one in path.glob(".env*") if one.is_file())
        have = say(" {path} has {there}.", path=path, there=", ".join(there)) if there else ""
        keep = [name for name in names if name not in missing]
        wanted = keep + [one for one in there if one not in keep]
        raise OperatorError(
            observed(
                "AMO-4112",
                "prepare_shared_files names {missing}: neither {path} nor {releases} has it.{have}",
                missing=", ".join(missing),
                path=path,
                releases=releases / "shared",
                have=have,
            ),
            expected=say(
                "each of these files at one of the two: git does not have them, and no release starts without."
            ),
            next_step=say(
                "set prepare_shared_files: [{wanted}] in the inventory, or put the file at {path}. "
                "Nothing was touched.",
                wanted=", ".join(wanted),
                path=path / missing[0],
            ),
            missing=missing,
        )


def _refuse_own(release: Path, names: Sequence[str]) -> None:
    """Raise OperatorError when the release has a file or directory where a link is to be."""
    own = [name for name in names if not (release / name).is_symlink() and (release / name).exists()]
    if own:
        raise OperatorError(
            observed(
                "AMO-4113",
                "{release} has {own} of its own, which prepare_shared_files names.",
                release=release,
                own=", ".join(own),
            ),
            expected=say("nothing there, or a link: the file that every release shares takes this place."),
            next_step=say(
                "git -C {release} ls-files {name}: if that names it, take it out of git, or out of "
                "prepare_shared_files; otherwise mv {file} elsewhere. Nothing that serves was "
                "touched.",
                release=release,
                name=own[0],
                file=release / own[0],
            ),
        )


def _is_copy(source: Path, target: Path) -> bool:
    """Whether the target has the content already, and is closed to others."""
    return target.is_file() and _mode(target) == _FILE and target.read_bytes() == source.read_bytes()


def _leads_to(place: Path, target: Path) -> bool:
    return place.is_symlink() and os.readlink(place) == str(target)


def _link(place: Path, target: Path) -> None:
    """Let ``place`` be a link to ``target``. One that leads elsewhere is replaced in one step."""
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_name(f".{place.name}.link")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(place)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
