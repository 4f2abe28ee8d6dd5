"""A run of the chaos tests that stands still before a task: it is struck there, once each time, and goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from tests.chaos.world import until_ended

TWICE = "import os, signal\nfor _ in range(2): os.kill(os.getpid(), signal.SIGSTOP)\nraise SystemExit(7)"


def started() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", TWICE])


def test_it_goes_on_each_time_and_ends_by_itself() -> None:
    halted: list[int] = []
    run = started()
    assert until_ended(run, halted.append) == 7
    assert halted == [run.pid, run.pid]


def test_it_may_be_killed_there() -> None:
    assert until_ended(started(), lambda pid: os.kill(pid, signal.SIGKILL)) == -signal.SIGKILL
