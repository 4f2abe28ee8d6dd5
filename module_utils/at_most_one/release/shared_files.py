"""Find what a release has already, and where the files are that git does not have and every release shares.

While the application is deployed in place its own files are the true ones; from then on those beside the releases are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import OperatorError
from ..http.build_probe import require_files

MARKER = ".at-most-one.json"


@dataclass(frozen=True)
class Found:
    """What a release has already: its finished build, its shared files; and which of these are still to be copied."""

    built: bool
    shared: bool
    to_copy: tuple[str, ...]


def inspect(path: Path, releases: Path, release: Path, names: Sequence[str], *, in_place: bool) -> Found:
    """Look at ``release`` before anything is touched.

    ``path`` is the application's path, ``releases`` the directory of the releases. Raises OperatorError when a shared
    file is nowhere, or when a finished build has lost files since.
    """
    missing = [name for name in names if not any((one / name).is_file() for one in (path, releases / "shared"))]
    if missing:
        there = sorted(one.name for one in path.glob(".env*") if one.is_file())
        have = f" {path} has {', '.join(there)}." if there else ""
        keep = [name for name in names if name not in missing]
        wanted = keep + [one for one in there if one not in keep]
        raise OperatorError(
            f"prepare_shared_files names {', '.join(missing)}: neither {path} nor {releases / 'shared'} has it.{have}",
            expected="each of these files at one of the two: git does not have them, and no release starts without.",
            next_step=f"set prepare_shared_files: [{', '.join(wanted)}] in the inventory, or put the file at "
            f"{path / missing[0]}. Nothing was touched.",
            missing=missing,
        )
    built = (release / MARKER).is_file()
    if built and release.resolve() != path.resolve():
        require_files(release)
    return Found(
        built,
        all((release / name).exists() for name in names),
        tuple(
            name
            for name in names
            if (path / name).is_file() and (in_place or not (releases / "shared" / name).is_file())
        ),
    )
