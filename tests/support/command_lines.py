"""Every command line of this machine, looked at as often as it can be: what `ps` shows to everybody.

As a program it looks until its input ends, and prints what it has seen. In a process of its own, so that a busy test
does not slow it down.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

PAUSE_S = 0.01


@dataclass
class Seen:
    """The command lines, once the block has ended, and how many rounds of looking there were."""

    lines: list[str] = field(default_factory=list)
    rounds: int = 0

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@contextmanager
def watched() -> Iterator[Seen]:
    """Look while the block lasts."""
    seen = Seen()
    command = [sys.executable, __file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "looking\n"
        try:
            yield seen
        finally:
            rounds, *lines = process.communicate()[0].splitlines()
            seen.rounds, seen.lines = int(rounds), lines


def _look() -> None:
    print("looking", flush=True)
    seen, rounds = set[bytes](), 0
    while not select.select([sys.stdin], [], [], PAUSE_S)[0]:
        rounds += 1
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    with open(f"/proc/{entry}/cmdline", "rb") as arguments:
                        seen.add(arguments.read())
                except OSError:
                    continue
    print(rounds)
    for line in seen:
        print(line.replace(b"\0", b" ").decode(errors="replace").replace("\n", " "))


if __name__ == "__main__":
    _look()
