"""The application's path is a symbolic link to one release; switching it is one atomic rename.

The first time, the path is the directory that was deployed in place: it is adopted, that is moved among the releases
while it serves. Running workers keep their directory, and at no instant does the path lead nowhere.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from ..errors import OperatorError
from ..findings import observed, say
from ..system import files
from ..system.processes import account

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # renameat2(2), Linux 3.15 and later


def current(path: Path) -> Path | None:
    """The release that the path leads to: the link's target, the directory itself, or None when there is nothing."""
    if path.is_symlink():
        return path.resolve()
    return path if path.is_dir() else None


def require_switchable(path: Path, releases: Path) -> None:
    """Raise OperatorError where no rename could make ``path`` a link to one of the releases.

    Asked before anything is touched: at the switch the rows have left already.
    """
    place = next(one for one in (releases, *releases.parents) if one.exists())
    if not os.access(path.parent, os.W_OK | os.X_OK):
        why = say("{user} may not write to {directory}", user=account(os.geteuid()), directory=path.parent)
    elif not path.is_symlink() and path.is_dir() and path.stat().st_dev != place.stat().st_dev:
        why = say("{releases} is on another file system", releases=releases)
    else:
        return
    raise OperatorError(
        observed("AMO-4125", "{path} cannot be made a link to a release: {why}.", path=path, why=why),
        expected=say(
            "a directory, or a link, that one rename can replace: in a directory that this account may write to, and "
            "on the file system of app_releases_path."
        ),
        next_step=say(
            "let the account write there, or have both on one file system: a mount point itself cannot be renamed, a "
            "directory below it can. Nothing was touched."
        ),
    )


def switch(path: Path, release: Path, adopt_as: Path, *, check_mode: bool = False) -> tuple[Path | None, bool]:
    """Make ``path`` a link to ``release``. Returns the release before (adopted: its new place) and whether it changed.

    Raises OperatorError, before anything is touched, when the release does not exist or when the place that the adopted
    directory would move to is taken.
    """
    before = current(path)
    in_place = before is not None and not path.is_symlink()
    if not check_mode and not release.is_dir():
        raise OperatorError(
            observed("AMO-4109", "{release} is not a directory.", release=release),
            expected=say("a built release to point the application's path at."),
            next_step=say("run the phase prepare first: it builds the release."),
        )
    if in_place and release == path:  # the checkout already is what is wanted: nothing to adopt it for
        return path, False
    if adopt_as.is_symlink() and Path(os.readlink(adopt_as)) == adopt_as:  # left by a kill just before the exchange
        adopt_as.unlink()
    if in_place and os.path.lexists(adopt_as):
        raise OperatorError(
            observed(
                "AMO-4110",
                "{path} is a directory, and {adopt_as}, where it would be moved to, exists already.",
                path=path,
                adopt_as=adopt_as,
            ),
            expected=say("one of the two: a checkout to adopt, or a release that the path links to."),
            next_step=say(
                "look at both; keep the one that is served (readlink /proc/PID/cwd) at {adopt_as}.", adopt_as=adopt_as
            ),
        )
    previous = adopt_as if in_place else before
    changed = in_place or before != release.resolve()
    if changed and not check_mode:
        if in_place:
            _adopt(path, adopt_as)
        files.link(path, release)
    return previous, changed


def _adopt(path: Path, adopt_as: Path) -> None:
    """Put a link to ``adopt_as`` where the directory is and the directory where the link was, in one exchange."""
    files.directory(adopt_as.parent, 0o755)
    os.symlink(adopt_as, adopt_as)  # leads nowhere until the exchange, which makes it true
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.renameat2(_AT_FDCWD, os.fsencode(path), _AT_FDCWD, os.fsencode(adopt_as), _RENAME_EXCHANGE)
    if failed:
        code = ctypes.get_errno()
        adopt_as.unlink()
        if code not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(code, os.strerror(code), str(path))
        # A file system that cannot exchange (some overlays): two renames, with the path absent for microseconds.
        link = adopt_as.with_name(f".{adopt_as.name}.link")
        link.symlink_to(adopt_as)
        path.rename(adopt_as)
        link.rename(path)


def share(release: Path, shared: Path) -> list[Path]:
    """Link the files of ``release`` that all releases share to ``shared``; return those that have another content.

    A checkout that was deployed in place has files of its own: once it is a release, a later change of the shared file
    must reach it too. A file with another content is left as it is: nobody knows which of the two is right.
    """
    different = []
    for file in sorted(path for path in shared.rglob("*") if path.is_file()):
        own = release / file.relative_to(shared)
        if own.is_symlink() or not own.is_file():
            continue
        if own.read_bytes() == file.read_bytes():
            files.link(own, file)
        else:
            different.append(own)
    return different
