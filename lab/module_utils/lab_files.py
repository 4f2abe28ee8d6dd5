"""What the lab's modules share: private files written whole, and programs found or started."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ansible.module_utils.at_most_one.system import files


def write_private(path: Path, text: str, mode: int = 0o600) -> bool:
    """Write a file whole or not at all, readable by its owner only. True when its content or mode changed."""
    if path.is_file() and path.read_text(encoding="utf-8") == text and path.stat().st_mode & 0o777 == mode:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, text, mode, durable=False)
    return True


def remove(path: Path) -> bool:
    """Remove a file, a link (never what it points at) or a whole directory. True when there was something."""
    if not os.path.lexists(path):
        return False
    # rm needs a third of shutil.rmtree's time for the packages of a release.
    done = run(["rm", "-rf", "--", path])
    if done.returncode:
        raise OSError(done.stdout.strip())
    return True


def run(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    user: tuple[int, int] | None = None,
    timeout_s: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Run a program with its output in files, so that a daemon it leaves behind holds no pipe of ours.

    ``environment`` replaces ours completely. ``user`` is (uid, gid): privileges are dropped before the program starts.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        done = subprocess.run(  # noqa: S603 (our own programs by absolute path, no shell)
            [str(part) for part in command],
            env=None if environment is None else dict(environment),
            cwd=cwd or "/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
            user=user[0] if user else None,
            group=user[1] if user else None,
            extra_groups=[] if user else None,
        )
        output.seek(0)
        return subprocess.CompletedProcess(done.args, done.returncode, output.read(), "")


def alive(pid_file: Path, *, mark: Path) -> int | None:
    """The process id in a pid file, if that process lives and is ours: it works in ``mark``, or names it in its title.

    A pid file outlives a machine that was switched off, and another process may have the number by now.
    """
    try:
        pid = int(pid_file.read_text(encoding="utf-8").split()[0])
        process = Path("/proc") / str(pid)
        if os.readlink(process / "cwd") == str(mark):
            return pid
        title = (process / "cmdline").read_bytes()
    except (OSError, IndexError, ValueError):
        return None
    return pid if os.fsencode(mark) in title else None
