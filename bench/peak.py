"""Peak memory of another program, without our own in it: a small process starts it and reads what the kernel counted.

A child begins its life with its parent's resident pages in its own peak, so the bench must not be the parent.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """How a program ended. ``peak_kb`` is its largest resident set, in KiB."""

    code: int
    peak_kb: int
    output: str


def run(command: Sequence[str], given: str, timeout_s: float = 900) -> Run:
    """Run the program with ``given`` on its standard input."""
    small = [sys.executable, "-S", __file__, *command]
    done = subprocess.run(small, input=given, capture_output=True, text=True, timeout=timeout_s)
    try:
        return Run(**json.loads(done.stderr.rpartition("\n")[2]), output=done.stdout)
    except (ValueError, TypeError):
        raise RuntimeError(f"{command[0]} told nothing (exit {done.returncode}):\n{done.stdout}{done.stderr}") from None


def main(command: Sequence[str]) -> None:
    """The small process: start, wait, tell on the last line of standard error."""
    pid = os.posix_spawn(command[0], list(command), os.environ)
    _, status, usage = os.wait4(pid, 0)
    told = {"code": os.waitstatus_to_exitcode(status), "peak_kb": usage.ru_maxrss}
    sys.stderr.write("\n" + json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1:])
