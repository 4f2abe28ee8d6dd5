"""A network and mounts of our own, in Linux namespaces: what loses packets or is full is nobody else's.

Who is not root makes a user namespace as well, where the machine allows it. They end with the last process that was
started in them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_MARK = "AT_MOST_ONE_CHAOS_APART"


def enter() -> None:
    """Start this program once more, in namespaces of its own, unless it is in them already."""
    if os.environ.get(_MARK) == str(os.getpid()):
        _command("ip", "link", "set", "lo", "up")
        return
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    program = [sys.executable, "-m", "tests.chaos", *sys.argv[1:]]
    environment = {**os.environ, _MARK: str(os.getpid())}  # no process is made between here and there
    os.execvpe("unshare", ["unshare", *user, "--net", "--mount", "--", *program], environment)


class Network:
    """An address of which every packet can be lost: nothing is refused, and nobody says goodbye."""

    def __init__(self, address: str) -> None:
        self.address = address

    def set_up(self) -> None:
        _command("ip", "address", "replace", f"{self.address}/32", "dev", "lo")

    def lose(self) -> None:
        """From now on. Not even the kernel at the other end acknowledges what is sent."""
        _command("ip", "address", "del", f"{self.address}/32", "dev", "lo")
        _command("ip", "route", "add", "blackhole", f"{self.address}/32")

    def restore(self) -> None:
        """Also where nothing is lost, and so no route to be removed."""
        subprocess.run(["ip", "route", "del", "blackhole", f"{self.address}/32"], check=False, capture_output=True)
        self.set_up()


class Disk:
    """A small one, in memory once it is mounted, with everything that lies on it."""

    SIZE = "96m"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._filling = directory / "full"

    def mount(self) -> None:
        _command("mount", "-t", "tmpfs", "-o", f"size={self.SIZE}", "tmpfs", str(self.directory))

    @contextlib.contextmanager
    def also_at(self, place: Path) -> Iterator[None]:
        """A directory of this disk is at ``place`` as well, in the place of what is there."""
        part = self.directory / place.name
        for directory in (part, place):
            directory.mkdir(parents=True, exist_ok=True)
        _command("mount", "--bind", str(part), str(place))
        try:
            yield
        finally:
            _command("umount", "--lazy", str(place))

    def fill(self) -> None:
        """To the last byte. Raises OSError when something else than its size is in the way."""
        with self._filling.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 20))
            except OSError as failure:
                if failure.errno != errno.ENOSPC:
                    raise

    def empty(self) -> None:
        self._filling.unlink(missing_ok=True)


def _command(*words: str) -> None:
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, capture_output=True)
