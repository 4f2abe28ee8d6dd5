"""A host lets the last run write: whoever was overtaken is refused by name, also when it was frozen in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from at_most_one.errors import OperatorError
from at_most_one.system import run_token
from at_most_one.system.processes import is_stopped

from tests.support.login import umask

Module = Callable[..., dict[str, Any]]


def run(directory: Path, number: int, name: str = "") -> run_token.Run:
    return run_token.Run(name or f"run-{number}", number, directory)


def write(directory: Path, number: int, name: str = "", **options: Any) -> None:
    """What a module does: an entry in ``log`` is its write."""
    with run_token.guard(run(directory, number, name), **options)([]):
        log(directory, number)


def log(directory: Path, number: int) -> None:
    with open(directory / "log", "a", encoding="utf-8") as file:
        file.write(f"{number}\n")


def logged(directory: Path) -> list[int]:
    return [int(line) for line in (directory / "log").read_text().splitlines()]


def test_later_runs_and_the_same_one_write_and_an_earlier_one_does_not(tmp_path: Path) -> None:
    assert run_token.last_number(tmp_path) == 0
    for number in (41, 41, 42):
        write(tmp_path, number)
    token = json.loads((tmp_path / ".run.json").read_text())
    assert (token["number"], token["run_id"]) == (42, "run-42")
    with pytest.raises(OperatorError) as refused:
        write(tmp_path, 41)
    assert refused.value.seen == (
        "Run run-41 (number 41) was overtaken by run run-42 (number 42), which has written on this host since"
        f" {token['written_at']}. Nothing was written; this call had changed before: nothing."
    )
    assert refused.value.details["overtaken_by"] == "run-42"
    assert "history.yml" in refused.value.next_step
    assert logged(tmp_path) == [41, 41, 42]
    assert run_token.last_number(tmp_path) == 42


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_the_releases_are_open_to_read_and_closed_to_write_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    """Their directory may be made by the first write of a run; a web server reads the assets in it."""
    releases = tmp_path / "releases"
    with umask(mask):
        write(releases, 41)
    assert releases.stat().st_mode & 0o777 == 0o755
    assert [(releases / name).stat().st_mode & 0o022 for name in (".run.json", ".run.lock")] == [0, 0]


def test_two_runs_with_one_number_are_not_one(tmp_path: Path) -> None:
    """Two journals have given it: of one restored from a backup, for example."""
    write(tmp_path, 42, "one")
    with pytest.raises(OperatorError, match=r"Run other .* was overtaken by run one"):
        write(tmp_path, 42, "other")


def test_the_error_names_what_the_call_had_changed(tmp_path: Path) -> None:
    guard = run_token.guard(run(tmp_path, 41))
    with guard([]):
        pass
    write(tmp_path, 42)
    changed = ["instance 0 reloaded (pid 7 -> 8)"]
    with pytest.raises(OperatorError, match=r"had changed before: instance 0 reloaded \(pid 7 -> 8\)") as refused:
        guard(changed).__enter__()
    assert refused.value.details["changed"] == changed


def test_check_mode_reads_and_writes_nothing(tmp_path: Path) -> None:
    there = tmp_path / "releases"
    with run_token.guard(run(there, 41), check=True)([]):
        pass
    assert not there.exists()
    write(tmp_path, 42)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with run_token.guard(run(tmp_path, 43), check=True)([]):
        pass
    with pytest.raises(OperatorError, match="was overtaken by run run-42"):
        run_token.guard(run(tmp_path, 41), check=True)([]).__enter__()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "42", '{"number": 42}', '{"number": "42", "run_id": "x", "written_at": "now"}'),
        '{"number": true, "run_id": "x", "written_at": "now"}',
        '{"number": 42, "run_id": 1, "written_at": "now"}',
    ],
)
def test_a_broken_token_is_an_error_with_its_remedy(tmp_path: Path, content: str) -> None:
    path = tmp_path / ".run.json"
    path.write_text(content)
    for act in (lambda: write(tmp_path, 43), lambda: run_token.last_number(tmp_path)):
        with pytest.raises(OperatorError, match="does not say which run wrote on this host last") as refused:
            act()
        assert f"rm {path}" in refused.value.next_step
        assert '"number"' in refused.value.expected
    assert not (tmp_path / "log").exists()
    path.unlink()
    write(tmp_path, 43)


def test_what_is_no_text_is_an_error_too(tmp_path: Path) -> None:
    (tmp_path / ".run.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OperatorError, match="does not say which run"):
        write(tmp_path, 43)


def test_a_write_that_crashed_leaves_the_host_to_this_run_and_to_later_ones(tmp_path: Path) -> None:
    def crash(number: int) -> None:
        with pytest.raises(ZeroDivisionError), run_token.guard(run(tmp_path, number))([]):
            1 / 0  # noqa: B018

    write(tmp_path, 41)
    crash(42)
    with pytest.raises(OperatorError, match="overtaken by run run-42"):
        write(tmp_path, 41)
    write(tmp_path, 42)
    write(tmp_path, 43)
    assert logged(tmp_path) == [41, 42, 43]


WRITER = """
import sys
from pathlib import Path
from at_most_one.errors import OperatorError
from at_most_one.system import run_token
directory, number = Path(sys.argv[1]), int(sys.argv[2])
guard = run_token.guard(run_token.Run(f"run-{number}", number, directory), wait_s=30)
for line in sys.stdin:
    try:
        with guard([]):
            print("inside", flush=True)
            sys.stdin.readline()
            with open(directory / "log", "a") as log:
                log.write(f"{number}\\n")
        print("written", flush=True)
    except OperatorError as refused:
        print(refused, flush=True)
"""


class Writer:
    """A process that begins a write, and ends it when told."""

    def __init__(self, directory: Path, number: int) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-c", WRITER, str(directory), str(number)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)

    def ask(self) -> str:
        self.go()
        return self.answer()

    def go(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        while not is_stopped(self.process.pid):
            time.sleep(0.01)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Callable[[int], Writer]]:
    made: list[Writer] = []

    def make(number: int) -> Writer:
        made.append(Writer(tmp_path, number))
        return made[-1]

    yield make
    for one in made:
        one.process.kill()
        one.process.communicate()


def test_a_later_run_does_not_get_between_check_and_write_of_a_frozen_one(
    tmp_path: Path, writer: Callable[[int], Writer]
) -> None:
    """Whoever is frozen there may go on at any moment: it is named with its process, and not waited for."""
    earlier = writer(41)
    assert earlier.ask() == "inside"
    earlier.freeze()
    began = time.monotonic()
    with pytest.raises(OperatorError) as refused:
        write(tmp_path, 42)
    assert time.monotonic() - began < 10
    pid = earlier.process.pid
    assert f"Process {pid} of run run-41 is writing on this host and is frozen" in refused.value.seen
    assert "Run run-42 has written nothing" in refused.value.seen
    assert f"kill -KILL {pid}" in refused.value.next_step
    assert run_token.last_number(tmp_path) == 41

    os.kill(pid, signal.SIGCONT)
    assert earlier.ask() == "written"
    write(tmp_path, 42)
    assert "was overtaken by run run-42" in earlier.ask()
    assert logged(tmp_path) == [41, 42]


def test_a_frozen_run_that_is_killed_leaves_the_host_to_the_next(
    tmp_path: Path, writer: Callable[[int], Writer]
) -> None:
    earlier = writer(41)
    assert earlier.ask() == "inside"
    earlier.freeze()
    earlier.process.kill()
    earlier.process.wait()
    write(tmp_path, 42)
    assert logged(tmp_path) == [42]


def test_a_write_that_is_under_way_is_waited_for(tmp_path: Path, writer: Callable[[int], Writer]) -> None:
    earlier = writer(41)
    assert earlier.ask() == "inside"
    later = threading.Thread(target=write, args=(tmp_path, 42))
    later.start()
    with pytest.raises(OperatorError, match=r"Process .* of run run-41 is writing on this host\. Run run-43"):
        write(tmp_path, 43, wait_s=0.2)
    assert earlier.ask() == "written"
    later.join(30)
    assert logged(tmp_path) == [41, 42]
