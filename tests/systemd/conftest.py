"""A systemd of the tests' own: PID 1 of its namespaces, with its own network, cgroups and files over the machine's."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import wait_until

ROOT = Path(__file__).resolve().parents[2]
NAMESPACES = ("mount", "pid", "uts", "ipc", "net", "cgroup")


@dataclass(frozen=True)
class Machine:
    """What the systemd runs on: its PID 1 as this machine counts."""

    init: int

    @property
    def root(self) -> Path:
        """Its files, as this machine reaches them."""
        return Path(f"/proc/{self.init}/root")

    @property
    def inside(self) -> list[str]:
        """What goes before a command that is to run there."""
        ways = [f"--{name}" for name in NAMESPACES]
        return ["nsenter", f"--target={self.init}", *ways, f"--root={self.root}", "--", "env", "--chdir=/"]

    def run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run([*self.inside, *command], capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def write(self, path: str, text: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def _cgroup() -> Path:
    """Where a group of our own may be made: below that of this process, where cgroup2 is mounted."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    (own,) = [line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")]
    where = next(Path(fields[1]) for fields in mounts if fields[2] == "cgroup2")
    return where / own.lstrip("/") / f"at-most-one-{os.getpid()}"


def _removed(group: Path) -> bool:
    """Whether it is gone, with the groups that the systemd has made in it."""
    with contextlib.suppress(OSError):  # its last process is just ending
        for directory, _groups, _files in os.walk(group, topdown=False):
            os.rmdir(directory)
    return not group.exists()


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine that has booted. It needs root, and the systemd of this machine."""
    directory, group = tmp_path_factory.mktemp("machine"), _cgroup()
    group.mkdir()
    options = [*(f"--{name}" for name in NAMESPACES), "--fork", "--kill-child", "--propagation=private"]
    boot = ["unshare", *options, str(ROOT / "tests/systemd/boot.sh"), str(directory), str(ROOT)]
    with (directory.parent / "boot.log").open("wb") as log:
        started = subprocess.Popen(
            ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs"), *boot],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    init = 0
    try:

        def booted() -> bool:
            nonlocal init
            assert started.poll() is None, (directory.parent / "boot.log").read_text()
            children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
            init = int(children[0]) if children else 0
            # Until it has changed its root, whoever asks there might ask the systemd of this machine.
            there = Path(f"/proc/{init}/root/etc/systemd/system/at-most-one.target")
            return there.exists() and "running" in Machine(init).run("systemctl", "is-system-running", check=False)

        wait_until(booted, 60, "systemd does not boot")
        yield Machine(init)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(init or started.pid, signal.SIGKILL)  # and with it everything in its namespace
        started.wait(30)
        wait_until(lambda: _removed(group), 10, f"{group} is still in use")


@pytest.fixture
def module(machine: Machine, run_module: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Runs a module of library/ there."""

    def run(name: str, args: dict[str, Any], *, check: bool = False) -> dict[str, Any]:
        return run_module(name, args, check=check, before=machine.inside)

    return run


@pytest.fixture(scope="session", autouse=True)
def needed() -> None:
    """Name what is missing, before anything is made."""
    lacks = [name for name in ("unshare", "nsenter", "systemctl", "journalctl", "nginx") if not shutil.which(name)]
    lacks += [] if Path("/lib/systemd/systemd").exists() else ["systemd"]
    lacks += [] if os.geteuid() == 0 else ["root"]
    assert not lacks, (
        f"No systemd can be booted in namespaces here. Expected: {', '.join(lacks)}. Next: make systemd, as root or by "
        "a sudo that asks for nothing; it installs or names the packages."
    )
