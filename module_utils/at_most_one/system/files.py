"""A file or a link that changes in one step: whoever reads it sees the old one or the new one, never a part."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def replacing(path: str | Path, mode: int, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a file that takes the place of ``path``, readable as ``mode`` says, once the block has ended well.

    Its ``name`` is for a program that writes to a path. After a failure what was there stays, and nothing beside it.
    Without ``durable`` it is not forced to the disk: for notes that matter only while this machine runs.
    """
    target = Path(path)
    number, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(number)
    try:
        with open(name, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
            os.fchmod(file.fileno(), mode)
        os.replace(name, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def write(path: str | Path, content: str | bytes, mode: int, *, durable: bool = True) -> None:
    """Write ``content`` to ``path`` in one step, as :func:`replacing` does. An OSError leaves what was there."""
    with replacing(path, mode, durable=durable) as file:
        file.write(content if isinstance(content, bytes) else content.encode())


@contextlib.contextmanager
def created_as(model: Path) -> Iterator[None]:
    """Whatever the umask of the login, what the block creates is as open to read as ``model``, which serves until now.

    With 077 the web server, or the account of a unit, could not read a release; with 000 everybody could change it.
    """
    mode = model.stat().st_mode if model.is_dir() else 0o755
    before = os.umask(0o022 | (0o055 & ~mode))
    try:
        yield
    finally:
        os.umask(before)


def open_for_owner(path: str, flags: int) -> int:
    """The ``opener`` of a lock: others may read who holds it, and whoever would write it is its owner."""
    return os.open(path, flags, 0o644)


def directory(path: Path, mode: int) -> Path:
    """Make the directory where it is not there, and its parents, with this mode whatever the umask."""
    if not path.is_dir():
        directory(path.parent, mode)
        path.mkdir(exist_ok=True)
        path.chmod(mode)
    return path


def link(path: Path, target: str | Path) -> None:
    """Make ``path`` a symbolic link to ``target`` in one step."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.link")
    fresh.unlink(missing_ok=True)  # left by a process with this number that was killed
    fresh.symlink_to(target)
    os.replace(fresh, path)


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's content, read in parts."""
    made = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            made.update(part)
    return made.hexdigest()
