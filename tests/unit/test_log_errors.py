"""Which error lines are the new release's: separate and merged logs, with and without times, and what is known."""

from __future__ import annotations

import os
import re
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from at_most_one.system import log_errors
from at_most_one.system.log_errors import ERROR_PATTERN, Mark, Moment, Scan, Served, kind, written_at
from at_most_one.system.processes import uptime

ROOT = Path(__file__).parents[2]
BEGAN = 1_764_000_000.0  # when the run looked at the log for the first time


class Log:
    """A log that is written step by step, and the moments in between. Each step takes 10 s."""

    def __init__(self, path: Path) -> None:
        self.path, self.now, self.before, self.served = path, BEGAN, list[Moment](), list[Served]()
        path.write_text("")

    def write(self, *lines: str) -> None:
        with self.path.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    def moment(self) -> None:
        self.now += 10
        self.before.append(Moment(self.path.stat().st_size, self.now))

    def serves(self, pm_id: int, pid: int, old_pid: int | None) -> None:
        self.now += 10
        self.served.append(Served(pm_id, pid, old_pid, self.path.stat().st_size, self.now))

    def scan(self, *, started_at: float | None = None, seconds: float = 20.0) -> Scan:
        mark = Mark(str(self.path), tuple(self.served), tuple(self.before), started_at)
        return log_errors.scan(mark, ERROR_PATTERN, now=self.now + seconds)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "app.log")


def cutover(log: Log, *, noise: str = "") -> None:
    """Two instances in one log, each with a process of the release before that writes ``noise`` until it is gone."""
    log.moment()
    log.write(*[noise] * 5)
    log.moment()
    log.write(noise)
    log.serves(0, 200, 100)
    log.write(noise, noise)
    log.serves(1, 201, 101)


def test_a_release_that_fixes_a_noisy_error_is_not_charged_with_it(log: Log) -> None:
    cutover(log, noise="ERROR no template")
    log.write("ready", "WARN slow")
    found = log.scan()
    assert (found.errors, found.known, found.warnings) == (0, 0, 1)


def test_an_error_that_first_shows_while_the_old_process_drains_is_not_the_new_ones(log: Log) -> None:
    log.moment()
    log.moment()
    log.write("ERROR aborted")  # the process before, on its way out
    log.serves(0, 200, 100)
    assert log.scan().errors == 0


@pytest.mark.parametrize("noise", ["", "ERROR another one"])
def test_a_new_error_counts_also_when_the_release_before_was_noisy(log: Log, noise: str) -> None:
    cutover(log, noise=noise)
    log.write("ERROR brand new", noise)
    found = log.scan()
    assert (found.errors, found.shown) == (1, ["ERROR brand new"])
    assert found.known == (1 if noise else 0)


def test_the_same_error_no_more_often_is_known_and_told(log: Log) -> None:
    cutover(log, noise="ERROR user 17 has no template")
    log.write(*[f"ERROR user {number} has no template" for number in range(6)])
    found = log.scan()
    assert (found.errors, found.known, found.known_kinds, found.compared_s) == (0, 6, 1, 10)
    assert "not counted: 6 lines of 1 error that the release before wrote as well" in log_errors.told([found])


def test_the_same_error_far_more_often_counts(log: Log) -> None:
    cutover(log, noise="ERROR rare")  # 5 in 10 s before
    log.write(*["ERROR rare"] * 200)
    found = log.scan()
    assert (found.errors, found.more_often) == (200, 200)
    assert "200 of them are of errors that were there before, but less often" in log_errors.told([found])


def test_the_rate_under_the_probe_counts_as_the_rate_before(log: Log) -> None:
    """Before the probe a minute without requests, then one error per request: as after the cutover."""
    log.moment()
    log.now += 600
    log.moment()
    log.write(*["ERROR per request"] * 50)
    log.moment()
    log.serves(0, 200, 100)
    log.write(*["ERROR per request"] * 140)
    assert log.scan().errors == 0


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_set_meanwhile_changes_no_rate(log: Log, hours: int) -> None:
    log.moment()
    log.write(*["ERROR noisy"] * 5)
    log.moment()
    log.serves(0, 200, 100)
    log.write(*["ERROR noisy"] * 12)
    (first, last), (serves,) = log.before, log.served
    before = (replace(first, up=100.0), replace(last, at=last.at + 3600 * hours, up=110.0))
    served = (replace(serves, at=serves.at + 3600 * hours, up=120.0),)
    mark = Mark(str(log.path), served, before)
    found = log_errors.scan(mark, ERROR_PATTERN, now=served[0].at + 20)
    assert (found.errors, found.known, found.compared_s) == (0, 12, 10)
    prepared: dict[str, Any] = {"size": 0, "at": first.at + 3600, "up": 40.0}
    assert log_errors.mark_of(asdict(mark), prepared).before == (Moment(**prepared), *before)


def test_where_the_release_served_already_nothing_is_known(log: Log) -> None:
    """A run that was killed between two instances: what was written before is of both releases."""
    log.write("ERROR new in this release")
    log.serves(0, 200, 100)
    log.write("ERROR new in this release")
    assert log.scan().errors == 1


@pytest.mark.parametrize(
    ("line", "errors"),
    [
        ('{"level":"ERROR","pid":200,"msg":"boot"}', 1),  # the new process of instance 0
        ('{"level":"ERROR","pid":101,"msg":"boot"}', 0),  # the old one of instance 1
        ('{"level":"ERROR","pid":999,"msg":"boot"}', 0),  # neither, before the last old process was gone
        ("ERROR [200] boot", 1),
        ("ERROR [101] boot", 0),
        ('{"message":"ERROR boot","timestamp":"2025-11-24T16:00:40Z","type":"err","process_id":0}', 1),
        ('{"message":"ERROR boot","timestamp":"2025-11-24T16:00:40Z","type":"err","process_id":1}', 0),
        ("0|aedpics  | ERROR boot", 1),
        ("1|aedpics  | ERROR boot", 0),
        ("ERROR boot", 0),
    ],
)
def test_in_a_merged_log_a_line_that_names_its_process_is_that_ones(log: Log, line: str, errors: int) -> None:
    log.moment()
    log.moment()
    log.serves(0, 200, 100)
    log.write(line)
    log.serves(1, 201, 101)
    assert log.scan().errors == errors


def test_an_old_process_that_lives_on_is_not_the_new_one(log: Log) -> None:
    cutover(log)
    log.write('{"level":"ERROR","pid":100,"msg":"still draining"}')
    assert log.scan().errors == 0


def stamped(at: float, text: str) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S +00:00}: {text}"


def test_with_times_the_whole_life_of_the_release_before_is_known(log: Log) -> None:
    log.write(stamped(BEGAN - 5000, "ERROR of a withdrawn release"))
    log.write(*[stamped(BEGAN - 900 + number, "ERROR once in a while") for number in range(3)])
    cutover(log)
    log.write(stamped(log.now, "ERROR once in a while"), stamped(log.now, "ERROR of a withdrawn release"))
    found = log.scan(started_at=BEGAN - 1000)
    assert (found.errors, found.known) == (1, 1)
    assert found.shown[0].endswith("ERROR of a withdrawn release"), "the retry of a noisy release is stopped again"
    assert log.scan().errors == 2, "without times it is known since the run began"


def test_a_line_right_before_the_run_is_no_rate(log: Log) -> None:
    log.write(stamped(BEGAN + 9, "ERROR once"))  # a second before the first look
    cutover(log)
    log.write(*[stamped(log.now, "ERROR once")] * 40)
    found = log.scan(started_at=BEGAN - 1000)
    assert (found.errors, found.more_often) == (40, 40)
    assert log.scan(started_at=BEGAN + 8).errors == 0, "it comes each second of this release's life"


def test_a_log_that_was_rotated_meanwhile(log: Log) -> None:
    log.write("a long line that was there before" * 10)
    cutover(log)
    log.path.write_text(stamped(BEGAN, "ERROR before") + "\n" + stamped(log.now + 1, "ERROR after") + "\n")
    found = log.scan()
    assert (found.errors, found.shown[0][-11:]) == (1, "ERROR after")


def test_a_clock_that_was_set_back_hides_no_line_of_a_rotated_log(log: Log) -> None:
    """The log was looked at five seconds ago, when the clock was an hour ahead."""
    log.write("a long line that was there before" * 10)
    cutover(log)
    at, up = time.time() + 3600, uptime() - 5
    log.before = [replace(one, at=at, up=up) for one in log.before]
    log.served = [replace(one, at=at, up=up) for one in log.served]
    log.path.write_text(stamped(time.time(), "ERROR after") + "\n")
    found = log.scan()
    assert (found.errors, found.shown[0][-11:]) == (1, "ERROR after")


@pytest.mark.parametrize("instances", [1, 2])
def test_a_log_that_was_rotated_right_before_the_cutover(log: Log, instances: int) -> None:
    """What was read of the file before says nothing of this one. The second instance is switched after the rotation."""
    log.write("a long line that was there before" * 10, "ERROR no template")
    log.moment()
    log.moment()
    if instances == 2:
        log.serves(1, 201, 101)
    log.path.write_text("ERROR of the old process\n")
    log.serves(0, 200, 100)
    log.write("ERROR no template")
    found = log.scan()
    assert (found.errors, found.shown) == (1, ["ERROR no template"])


@pytest.mark.parametrize("name", ["app.log.1", "app.1.log", "app.log-20251124", "app__2025-11-24_16-00-00.log"])
@pytest.mark.parametrize("created", [True, False])
def test_what_is_known_stays_known_where_the_rotated_file_is_there(log: Log, name: str, created: bool) -> None:
    cutover(log, noise="ERROR no template")
    log.write("ERROR no template", "ERROR written before the rotation")
    log.path.rename(log.path.with_name(name))
    if created:
        log.path.write_text("")
        log.write("ERROR no template", "ERROR written after it")
    found = log.scan()
    assert (found.errors, found.known) == ((2, 2) if created else (1, 1))
    assert found.shown[0] == "ERROR written before the rotation"


def test_a_file_of_an_earlier_rotation_is_not_taken_for_the_log(log: Log) -> None:
    cutover(log, noise="ERROR no template")
    older = log.path.with_name("app.log.1")
    older.write_text("ERROR of another year\n" * 100)
    os.utime(older, (BEGAN, BEGAN))
    log.path.write_text("ERROR no template\n")
    found = log.scan()
    assert (found.errors, found.known, found.shown) == (1, 0, ["ERROR no template"])


def test_a_log_that_does_not_exist(tmp_path: Path) -> None:
    mark = Mark(str(tmp_path / "none"), (Served(0, 200, 100, 0, BEGAN),))
    assert log_errors.scan(mark, ERROR_PATTERN).errors == 0
    gone = Mark(str(tmp_path / "none"), (Served(0, 200, 100, 5, BEGAN),))
    with pytest.raises(OSError, match="none"):
        log_errors.scan(gone, ERROR_PATTERN)


def test_secrets_are_not_shown(log: Log) -> None:
    cutover(log)
    log.write("\x1b[31mERROR\x1b[0m DATABASE_URL=postgresql://u:hunter2@h/db")
    assert log.scan().shown == ["ERROR DATABASE_URL=postgresql://***@h/db"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("ERROR took 31 ms", "ERROR took 4,022 ms", True),
        ("ERROR 9b2f1c34-0000-4000-8000-00805f9b34fb", "ERROR 00000000-0000-4000-8000-00805f9b34fb", True),
        ("ERROR session clx9k2j4f0000qw", "ERROR session clx9k2j4f0001ab", True),
        ("ERROR commit 4b825dc", "ERROR commit 77aa1bc", True),
        ("ERROR mail kim@example.com", "ERROR mail lee@example.org", True),
        ("ERROR status: 500", "ERROR status: 404", False),
        ("PrismaClientKnownRequestError P2002", "PrismaClientKnownRequestError P2025", False),
        ("ERROR no template", "ERROR no schema", False),
    ],
)
def test_the_same_error_with_other_values(one: str, other: str, same: bool) -> None:
    assert (kind(one) == kind(other)) is same


@pytest.mark.parametrize(
    ("line", "at"),
    [
        ("2025-11-24 16:00:00 +00:00: ERROR x", BEGAN),
        ("2025-11-25T01:00:00.250+09:00 ERROR x", BEGAN + 0.25),
        ("2025-11-25 01:00:00 +0900 ERROR x", BEGAN),
        ('{"timestamp":"2025-11-24T16:00:00.000Z","message":"ERROR x"}', BEGAN),
        ('{"level":50,"time":1764000000000,"msg":"ERROR x"}', BEGAN),
        ("ERROR 2025-99-24 16:00:00Z", None),
        ("ERROR x", None),
    ],
)
def test_the_time_of_a_line(line: str, at: float | None) -> None:
    assert written_at(line) == at


def test_one_pattern_everywhere() -> None:
    role = (ROOT / "roles/healthcheck/defaults/main.yml").read_text()
    assert f"healthcheck_log_error_pattern: '{ERROR_PATTERN}'\n" in role
    documented = [
        found[1]
        for module in ("service_check", "service_watch")
        for found in re.finditer(
            r"\n  log_error_pattern:\n(?:    .*\n)*?    default: (.*)\n", (ROOT / f"library/{module}.py").read_text()
        )
    ]
    assert documented == [ERROR_PATTERN] * 2
