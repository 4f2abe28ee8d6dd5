"""What counts in a round of watching, at once or when the next round has it too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from at_most_one.errors import OperatorError
from at_most_one.findings import parse
from at_most_one.pm2.client import Instance, Listing
from at_most_one.service import traffic_probe, watch_summary
from at_most_one.service.health_checks import Check
from at_most_one.service.watch import (
    Limits,
    Seen,
    Since,
    confirmed,
    in_stretches,
    judge,
    marks,
    measure,
    scans,
    watch,
)
from at_most_one.service.watch import targets as targets_of
from at_most_one.system.log_errors import Mark, Moment, Scan, Served, moments

NO_DAEMON = OperatorError("No connection.", expected="one.", next_step="look.")


def instance(pm_id: int, pid: int, restarts: int = 1, status: str = "online", log: str = "out") -> Instance:
    return Instance(pm_id, pid, status, restarts, "cluster_mode", "/", "s", log, "err", 0, None, None)


def figures(p50: float | None = 10.0, requests: int = 10, failures: int = 0) -> dict[str, dict[str, Any]]:
    return {"page": {"p50_ms": p50, "requests": requests, "failures": failures, "failures_by_kind": {}}}


SINCE = Since({"page": 50.0}, {"0": (100, 1), "1": (101, 1)}, {})
BOTH = Listing(None, (instance(0, 100), instance(1, 101)))
GOOD = Seen(figures(), [Check("health", True, "GET /h", "200", "200")], [Scan("out")], BOTH, [], 0)


def names(seen: Seen, limits: Limits | None = None) -> list[str]:
    return [finding.name for finding in judge(seen, SINCE, limits or Limits())]


def test_each_path_is_asked_in_a_round_however_low_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The paths take turns, and each round begins with the first one."""
    rates = list[float]()
    monkeypatch.setattr(traffic_probe, "probe", lambda settings, *_: rates.append(settings.rate_per_s))
    targets = targets_of("http://127.0.0.1:1", {"page": "/", "health": "/health", "api": "/api"})
    for rate in (0.5, 1000.0):
        measure(traffic_probe.Settings(targets, rate), 0.05)
    assert rates == [pytest.approx(60.0), 1000.0]


def test_a_round_in_which_all_is_well() -> None:
    assert names(GOOD) == []
    assert names(Seen()) == [], "what was not looked at is no finding"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"checks": [Check("health", False, "GET /h", "200", "503")]}, ["health"]),
        ({"checks": [Check("health", None, "GET /h", "", "not run")]}, []),
        ({"scans": [Scan("out", errors=1, shown=["ERROR x"])]}, ["log"]),
        ({"scans": [Scan("out", warnings=9)]}, []),
        ({"figures": figures(149.9)}, []),
        ({"figures": figures(150.0)}, ["latency"]),
        ({"figures": figures(None, 10, 10)}, ["traffic"]),
        ({"figures": figures(10.0, 10, 1)}, []),
        ({"figures": figures(10.0, 10, 2)}, ["traffic"]),
        ({"instances": Listing(None, (instance(0, 100),))}, ["instances"]),
        ({"instances": Listing(None, (instance(0, 100), instance(1, 101, 2)))}, ["instances"]),
        ({"instances": Listing(None, (instance(0, 100), instance(1, 777)))}, ["instances"]),
        ({"instances": Listing(None, (instance(0, 100, 0), instance(1, 101, 0)))}, []),  # pm2 reset
        ({"instances": Listing(None, (instance(0, 100, 0), instance(1, 777, 0)))}, ["instances"]),
        ({"instances": Listing(None, (instance(0, 100), instance(1, 0, 1, "errored")))}, ["instances"]),
        ({"instances": Listing(None, (*BOTH.instances, instance(2, 102)))}, []),
        ({"instances": NO_DAEMON}, ["instances"]),
        ({"duplicates": 1}, ["duplicates"]),
        ({"faults": ["x is missing"], "duplicates": 2}, ["duplicates", "indexes"]),
        ({"faults": NO_DAEMON, "duplicates": None}, ["database"]),
    ],
)
def test_each_thing_that_can_go_wrong(change: dict[str, Any], expected: list[str]) -> None:
    assert names(Seen(**{**GOOD.__dict__, **change})) == expected


def test_below_the_floor_nothing_is_slow() -> None:
    fast = Since({"page": 2.0})
    assert judge(Seen(figures(99.0)), fast, Limits()) == []
    assert [one.name for one in judge(Seen(figures(100.0)), fast, Limits())] == ["latency"]


def test_a_fact_counts_at_once_and_a_hiccup_when_it_comes_again() -> None:
    slow = judge(Seen(figures(500.0)), SINCE, Limits())
    duplicate = judge(Seen(duplicates=1), SINCE, Limits())

    assert confirmed(slow, []) == ([], ["latency"])
    assert confirmed(slow, ["latency"]) == (slow, ["latency"])
    assert confirmed(slow, ["health"]) == ([], ["latency"])
    assert confirmed(duplicate, []) == (duplicate, [])


def rounds(*looks: Seen, suspects: Sequence[str] = ()) -> tuple[int, list[str]]:
    waiting = list(looks)
    done = watch(lambda: waiting.pop(0), SINCE, Limits(), seconds=1_000, suspects=suspects)
    return len(done.rounds), [finding.name for finding in done.findings]


SICK = Seen(**{**GOOD.__dict__, "checks": [Check("health", False, "GET /h", "200", "503")]})
TWICE = Seen(**{**GOOD.__dict__, "duplicates": 1})


def test_it_ends_with_the_first_round_that_counts() -> None:
    assert rounds(GOOD, TWICE) == (2, ["duplicates"])
    assert rounds(GOOD, SICK, GOOD, SICK, SICK) == (5, ["health"]), "one bad answer is a hiccup"
    assert rounds(SICK, suspects=["health"]) == (1, ["health"]), "the call before has seen it too"


def test_it_ends_after_its_time() -> None:
    done = watch(lambda: GOOD, SINCE, Limits(), seconds=0)
    assert (len(done.rounds), done.findings, done.suspects) == (1, [], [])


def test_errors_from_before_the_cutover_are_known_to_the_watch(tmp_path: Path) -> None:
    log, writers = tmp_path / "app.log", [instance(0, 100, log=str(tmp_path / "app.log"))]

    def write(line: str) -> Moment:
        with log.open("a") as file:
            file.write(f"{line}\n")
        return moments([str(log)])[str(log)]

    before = (write("quiet"), write("ERROR old"))
    cutover = asdict(Mark(str(log), (Served(0, 100, 99, before[-1].size, before[-1].at),), before))
    began = {str(log): write("the release that is watched")}
    alone, after = (marks(writers, began, given) for given in ({}, {str(log): cutover}))
    write("ERROR old")
    assert [sum(scan.errors for scan in scans(one, "ERROR")) for one in (alone, after)] == [1, 0]
    write("ERROR new")
    assert [scan.shown for scan in scans(after, "ERROR")] == [["ERROR new"]]


def test_a_log_that_cannot_be_read_is_an_error_line() -> None:
    mark = Mark("/proc/1/root/nowhere/x", (Served(0, 100, None, 5, 0.0),))
    (scan,) = scans({mark.path: asdict(mark)}, "ERROR")
    assert scan.errors == 1
    assert "cannot be read" in scan.shown[0]


def stretches(*answers: dict[str, Any], seconds: float, found_after: int = 99) -> tuple[Any, list[dict[str, Any]]]:
    """What comes of a watch whose calls answer so, and what each call was given."""
    given: list[dict[str, Any]] = []

    def call(more: dict[str, Any]) -> dict[str, Any]:
        given.append(more)
        return answers[len(given) - 1]

    return in_stretches(call, seconds, lambda: len(given) >= found_after), given


def stretch(number: int, *findings: str, suspects: Sequence[str] = ()) -> dict[str, Any]:
    return {
        "rounds": [number],
        "findings": [*findings],
        "suspects": [*suspects],
        "since": {"latency_ms": {"page": 5.0}},
    }


def test_each_stretch_goes_on_from_the_one_before() -> None:
    seen, given = stretches(stretch(1, suspects=["health"]), stretch(2), seconds=90)
    assert (seen["rounds"], seen["findings"]) == ([1, 2], [])
    since = {"latency_ms": {"page": 5.0}}
    assert given == [{"seconds": 60.0}, {"seconds": 30.0, "since": since, "suspects": ["health"]}]
    assert len(stretches(stretch(1), seconds=60)[1]) == 1
    assert stretches(stretch(1), seconds=1.2)[1] == [{"seconds": 1.2}]


def test_what_the_last_round_suspects_gets_one_more() -> None:
    """A service that dies at the end of the watch: one bad round alone is nothing that was found."""
    seen, given = stretches(stretch(1, suspects=["traffic"]), stretch(2, "traffic"), seconds=60)
    assert (seen["rounds"], seen["findings"]) == ([1, 2], ["traffic"])
    since = {"latency_ms": {"page": 5.0}}
    assert given[1] == {"seconds": 0.0, "since": since, "suspects": ["traffic"]}, "a round, whatever it lasts"
    seen, given = stretches(stretch(1, suspects=["health"]), stretch(2, suspects=["latency"]), seconds=60)
    assert (seen["findings"], len(given)) == ([], 2), "and no more than one"
    assert len(stretches(stretch(1, suspects=["health"]), seconds=60, found_after=1)[1]) == 1


def test_a_finding_ends_the_watch_of_every_host() -> None:
    seen, given = stretches(stretch(1), stretch(2, "duplicates"), seconds=3600)
    assert (seen["rounds"], seen["findings"], len(given)) == ([1, 2], ["duplicates"], 2)
    seen, given = stretches(stretch(1), stretch(2), seconds=3600, found_after=2)
    assert (seen["rounds"], seen["findings"], len(given)) == ([1, 2], [], 2), "another host has one"


def test_a_call_that_fails_is_the_answer() -> None:
    failed = {"failed": True, "msg": "no PM2"}
    assert stretches(stretch(1), failed, seconds=3600)[0] == failed


FOUND = {"name": "duplicates", "seen": "2 of them.", "expected": "none.", "next_step": "deploy."}
HOSTS: dict[str, dict[str, Any]] = {
    "web1": {
        "since": {"latency_ms": {"page": 8.0, "gone": 2.0}, "instances": {"0": [1, 0], "1": [2, 0]}},
        "rounds": [
            {"latency_ms": {"page": 9.0}, "requests": 30, "failures": 0},
            {"latency_ms": {"page": 8.5}, "requests": 30, "failures": 1},
        ],
        "findings": [FOUND],
    },
    "web2": {"since": {"latency_ms": {}, "instances": {}}, "rounds": [], "findings": [{**FOUND, "seen": "It ended."}]},
}


def test_what_all_hosts_have_seen_is_one_document() -> None:
    document = watch_summary.document(HOSTS, environment="staging", plan="rule", run_id=None)
    assert list(document) == ["environment", "plan", "run_id", "verdict", "findings", "since", "rounds"]
    assert document["verdict"] == "bad"
    assert [(one["host"], one["seen"]) for one in document["findings"]] == [
        ("web1", "2 of them."),
        ("web2", "It ended."),
    ]
    assert document["rounds"] == {"web1": HOSTS["web1"]["rounds"], "web2": []}
    assert watch_summary.document({"web2": {**HOSTS["web2"], "findings": []}})["verdict"] == "good"
    first, second = watch_summary.figures(HOSTS)
    assert first == {
        "name": "web1",
        "latency": [
            {"name": "page", "before_ms": 8.0, "slowest_ms": 9.0},
            {"name": "gone", "before_ms": 2.0, "slowest_ms": 0},
        ],
        **{"requests": 60, "failures": 1, "rounds": 2, "instances": 2},
    }
    assert (second["rounds"], second["requests"]) == (0, 0)


def test_a_host_that_gave_no_answer_is_a_finding_and_no_reason_to_go_back() -> None:
    lost: dict[str, Any] = {"unreachable": True, "msg": "ssh: connect to host web3 port 22: Connection refused"}
    refused: dict[str, Any] = {"failed": True, "msg": "x", "next_step": "look."}
    refused["findings"] = [NO_DAEMON.findings[0].as_data()]
    document = watch_summary.document({**HOSTS, "web3": lost, "web4": refused})
    third, fourth = document["findings"][2:]
    assert (third["host"], third["name"], third["identifier"]) == ("web3", watch_summary.UNWATCHED, "AMO-4420")
    assert "Connection refused" in third["seen"]
    assert (fourth["host"], fourth["name"], fourth["seen"]) == ("web4", watch_summary.UNWATCHED, "No connection.")
    assert watch_summary.figures({"web3": lost})[0]["rounds"] == 0
    assert "web3: The watch of this host has ended" in watch_summary.error({"web3": lost})


def test_the_findings_of_all_hosts_are_one_error() -> None:
    text = watch_summary.error(HOSTS)
    assert text == (
        "web1: 2 of them. Expected: none. Next: deploy. Seen: web2: It ended. Expected: none. Next: deploy."
    )
    assert [one.seen for one in parse(text).findings] == ["web1: 2 of them.", "web2: It ended."]
    assert [one.seen for one in watch_summary.by_host(HOSTS)] == ["web1: 2 of them.", "web2: It ended."]
