"""What is left of a command that had to be ended, and of one that has ended by itself."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from at_most_one.system import commands
from at_most_one.system.processes import members, start_ticks

# A shell ends at the first signal; what it has started here does not.
STUBBORN = "sh -c 'trap \"\" TERM; echo $$ > child; exec sleep 60' & "


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Where a command writes the pid of what it has started; ended with the test."""
    yield tmp_path
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


def child(directory: Path) -> int:
    return int((directory / "child").read_text())


def test_a_command_that_takes_too_long_ends_with_what_it_has_started(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_PATIENCE_S", 0.3)
    told: list[str] = []
    line = f"{STUBBORN} sleep 60"
    ended = commands.run(["sh", "-c", line], directory, os.environ, 1.5, cut_short=lambda: told.append("cut short"))
    assert (ended.returncode, told) == (None, ["cut short"])
    assert start_ticks(child(directory)) is None


def test_a_server_that_a_command_leaves_behind_lives_on(directory: Path) -> None:
    line = f"{STUBBORN} until [ -s child ]; do sleep 0.05; done"
    assert commands.run(["sh", "-c", line], directory, os.environ, 30).returncode == 0
    left = child(directory)
    assert start_ticks(left) is not None
    assert members(os.getpgid(left)) == [left]


def test_a_program_that_prints_without_end_does_not_fill_the_disk(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, files, kept = tempfile.TemporaryFile, list[IO[bytes]](), list[int]()

    def remembered() -> IO[bytes]:
        files.append(original())
        return files[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", remembered)
    monkeypatch.setattr(commands, "_MOST_KEPT", 1_000_000)
    line = "head -c 5000000 /dev/zero | tr '\\0' x; sleep 0.5; echo; echo end"

    def look() -> None:
        kept.append(os.fstat(files[0].fileno()).st_blocks * 512)

    ended = commands.run(["sh", "-c", line], directory, os.environ, 30, meanwhile=look)
    assert kept[-1] < 1_000_000
    assert ended.output.split()[-1] == "end"
    assert "\0" not in ended.output
