"""What is in force of the requests to a run, where it waits for that, and what is said of how far it is."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from at_most_one.postgres.checkpoint import Place, unasked
from at_most_one.runs import control, control_status, requests
from at_most_one.runs.requests import Effective, Request
from at_most_one.system import processes


def asked(*actions: str) -> list[Request]:
    return [
        Request(action, f"person {number}", "laptop", "2025-11-10T05:30:00Z") for number, action in enumerate(actions)
    ]


def names(found: Effective) -> list[str]:
    return [request.action for request in found.each()]


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        ((), []),
        (("pause",), ["pause"]),
        (("pause", "resume"), []),
        (("pause", "continue"), ["pause"]),
        (("hold_cutover", "resume"), ["hold_cutover"]),
        (("hold_cutover", "continue"), []),
        (("pause", "hold_cutover", "resume"), ["hold_cutover"]),
        (("pause", "resume", "pause"), ["pause"]),
        (("abort", "resume", "continue"), ["abort"]),
        (("pause", "hold_cutover", "abort"), ["pause", "hold_cutover", "abort"]),
    ],
)
def test_what_is_in_force_follows_from_the_order(actions: tuple[str, ...], expected: list[str]) -> None:
    assert names(requests.in_force(asked(*actions))) == expected


def test_the_first_of_two_equal_requests_stays_in_force() -> None:
    found = requests.in_force(asked("pause", "pause"))
    assert found.pause is not None
    assert found.pause.who == "person 0"


def test_every_action_has_an_effect_and_words() -> None:
    assert requests._EFFECT.keys() == requests._WORDS.keys()
    for name, lifting in requests.LIFTED_BY.items():
        assert requests._EFFECT[lifting] == (name, False)


ROWS, INDEXES = Place("cleanup", "rows", 0, 9), Place("migrate", "indexes", 1, 3)
FIRST_HOST, SECOND_HOST = Place("pm2_reload", "hosts", 0, 3), Place("pm2_reload", "hosts", 1, 3)


@pytest.mark.parametrize(
    ("actions", "places"),
    [
        ((), []),
        (("pause",), [ROWS, INDEXES, FIRST_HOST, SECOND_HOST]),
        (("hold_cutover",), [FIRST_HOST]),
        (("pause", "hold_cutover", "resume"), [FIRST_HOST]),
        (("pause", "hold_cutover", "continue"), [ROWS, INDEXES, FIRST_HOST, SECOND_HOST]),
    ],
)
def test_a_pause_holds_everywhere_and_a_hold_before_the_first_host(
    actions: tuple[str, ...], places: list[Place]
) -> None:
    found = requests.in_force(asked(*actions))
    every = [ROWS, INDEXES, FIRST_HOST, SECOND_HOST]
    assert [place for place in every if control.reason_to_wait(found, place)] == places


def test_without_a_run_nobody_is_asked() -> None:
    assert control.checkpoint(None) is unasked


@pytest.mark.parametrize(
    ("noted", "finished", "phase"),
    [
        ("prepare", [], "prepare"),
        (None, [], "prepare"),
        ("prepare", ["prepare"], "cleanup"),
        ("cleanup", ["prepare"], "cleanup"),
        ("cleanup", ["prepare", "cleanup"], "migrate"),
        ("migrate", ["prepare", "cleanup", "migrate"], "verify"),
        ("pm2_reload", ["prepare", "cleanup", "migrate", "verify"], "pm2_reload"),
        ("pm2_reload", ["prepare", "cleanup", "migrate", "verify", "pm2_reload", "healthcheck"], "healthcheck"),
        ("cleanup", ["migrate"], "verify"),
    ],
)
def test_the_phase_that_is_at_work(noted: str | None, finished: list[str], phase: str) -> None:
    assert control_status.phase_of(noted, finished) == phase


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ({}, (None, None)),
        ({"done": 0, "total": 100, "seconds": 5.0}, (None, None)),
        ({"done": 50, "total": 100, "seconds": 0.0}, (None, None)),
        ({"done": 50, "total": 200, "seconds": 10.0}, (5.0, 30)),
        ({"done": 200, "total": 200, "seconds": 10.0}, (20.0, 0)),
    ],
)
def test_the_rate_and_what_is_left(steps: dict[str, Any], expected: tuple[float | None, float | None]) -> None:
    assert tuple(control_status.rate(steps).values()) == expected


def row(**values: Any) -> dict[str, Any]:
    run: dict[str, Any] = dict.fromkeys(
        ("run_id", "plan_id", "environment", "who", "controller", "started_at", "finished_at", "outcome", "lease_until")
    )
    run |= {"failed_phase": None, "seconds": 60, "waiting_s": None, "finished": [], "progress": {"phase": "prepare"}}
    return {**run, **values}


STEPS = {"phase": "cleanup", "unit": "rows", "done": 20, "total": 80, "seconds": 4.0, "at": "2025-11-10T05:31:00Z"}


def test_a_waiting_run_says_for_what_by_whom_since_when_and_what_lifts_it() -> None:
    waiting = {"for": "pause", "since": "2025-11-10T05:31:00Z"}
    run = row(progress={**STEPS, "waiting": waiting}, finished=["prepare"], waiting_s=90)
    found = control_status.describe(run, asked("pause"))
    assert (found["phase"], found["done"], found["total"], found["rate_per_s"], found["left_s"]) == (
        *("cleanup", 20, 80, 5.0, 12),
    )
    assert found["waiting"] == {
        **waiting,
        "seconds": 90,
        "lifted_by": "resume",
        "asked_by": {"action": "pause", "who": "person 0", "controller": "laptop", "at": "2025-11-10T05:30:00Z"},
    }
    assert [one["in_force"] for one in found["requests"]] == [True]


def test_steps_of_a_phase_that_has_ended_are_not_those_of_the_next() -> None:
    found = control_status.describe(row(progress=STEPS, finished=["prepare", "cleanup"]), [])
    assert (found["phase"], found["done"], found["waiting"], found["rate_per_s"]) == ("migrate", None, None, None)


def test_a_run_that_waits_in_a_clean_up_that_migrate_calls_is_not_said_to_wait_for_nobody() -> None:
    waiting = {"for": "pause", "since": "2025-11-10T05:31:00Z"}
    found = control_status.describe(row(progress={**STEPS, "waiting": waiting}, finished=["prepare", "cleanup"]), [])
    assert (found["phase"], found["done"], found["waiting"]["lifted_by"]) == ("migrate", 20, "resume")


def test_a_run_that_has_failed_is_not_said_to_be_at_the_next_phase() -> None:
    run = row(progress=STEPS, finished=["prepare", "cleanup"], failed_phase="cleanup")
    found = control_status.describe(run, [])
    assert (found["phase"], found["failed_phase"]) == ("cleanup", "cleanup")
    assert (found["done"], found["rate_per_s"]) == (None, None)


def test_hosts_are_counted_between_their_batches_and_while_the_run_waits_before_them() -> None:
    steps = {"phase": "pm2_reload", "unit": "hosts", "total": 3, "seconds": 0.003}
    waiting = {"for": "pause", "since": "2025-11-10T05:31:00Z"}
    found = [
        control_status.describe(row(progress={**steps, "done": done, "waiting": one}), [])
        for done, one in ((0, waiting), (0, None), (1, waiting), (1, None))
    ]
    assert [(one["phase"], one["unit"], one["done"], one["total"]) for one in found] == [
        ("pm2_reload", "hosts", 0, 3),
        ("pm2_reload", None, None, None),
        *[("pm2_reload", "hosts", 1, 3)] * 2,
    ]
    assert {one["rate_per_s"] for one in found} == {None}, "it is noted before each batch: nobody knows a pace"


@pytest.mark.parametrize(
    "pair", [os.pipe, lambda: [end.detach() for end in socket.socketpair()]], ids=["pipe", "socket"]
)
def test_whether_anybody_reads_what_is_written(pair: Callable[[], Sequence[int]]) -> None:
    reading, writing = pair()
    assert not processes.nobody_reads(writing)
    os.close(reading)
    assert processes.nobody_reads(writing)
    os.close(writing)


def test_a_file_has_no_reader_to_lose(tmp_path: Path) -> None:
    with (tmp_path / "output").open("w") as output:
        assert not processes.nobody_reads(output.fileno())


def test_a_run_that_has_ended_is_at_no_phase_and_nothing_is_in_force_of_it() -> None:
    found = control_status.describe(row(outcome="stopped", progress={**STEPS, "waiting": None}), asked("abort"))
    assert (found["is_open"], found["phase"], found["done"]) == (False, None, None)
    assert [one["in_force"] for one in found["requests"]] == [False]


def test_a_rollback_reads_no_requests() -> None:
    assert not control_status.describe(row(progress=None), [])["reads_requests"]
