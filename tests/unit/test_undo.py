"""What a rollback takes back: a table of journals, newest run first."""

from __future__ import annotations

from typing import Any

import pytest
from at_most_one.runs.undo import (
    begun_before,
    faults_before,
    in_the_way,
    last_deployment,
    needed_by_rollback,
    reached_by,
    taken_back,
)


def run(name: str, outcome: str, commits: str, **phases: str) -> dict[str, Any]:
    """A run as the journal gives it: "AB" is from A to B; a phase's value is its status, and "failed25" removed 25."""
    steps = [
        {"name": phase, "status": status.rstrip("0123456789"), "details": {"removed": int(status[6:] or 0)}}
        if status.startswith("failed")
        else {"name": phase, "status": status, "details": {}}
        for phase, status in phases.items()
    ]
    before, after = tuple(commits)
    return {"run_id": name, "outcome": outcome, "commit_before": before, "commit_after": after, "phases": steps}


def open_run(name: str, commits: str, **phases: str) -> dict[str, Any]:
    """A run that has not ended."""
    return {**run(name, "", commits, **phases), "outcome": None}


def back(name: str, *runs: str) -> dict[str, Any]:
    """A run that took these runs back."""
    step = {"name": "rollback", "status": "ok", "details": {"runs": list(runs)}}
    return {"run_id": name, "outcome": "rolled_back", "commit_before": "B", "commit_after": "B", "phases": [step]}


WHOLE = {"prepare": "ok", "cleanup": "ok", "migrate": "ok", "verify": "ok", "pm2_reload": "ok", "healthcheck": "ok"}
IDLE = {name: "unchanged" for name in WHOLE}
NOTHING: list[Any] = [None, None, None]
CASES: dict[str, tuple[list[dict[str, Any]], list[Any]]] = {
    "an empty journal": ([], NOTHING),
    "one deployment": ([run("1", "deployed", "AB", **WHOLE)], [("1",), "A", True]),
    "a rollback behind which all is taken back": (
        [run("2", "rolled_back", "BB", rollback="ok"), run("1", "deployed", "AB", **WHOLE)],
        NOTHING,
    ),
    "of two deployments the one before, once a rollback has taken the last one back": (
        [
            back("3", "2"),
            run("2", "deployed", "BC", cleanup="unchanged", migrate="unchanged", pm2_reload="ok"),
            run("1", "deployed", "AB", **WHOLE),
        ],
        [("1",), "A", True],
    ),
    "the deployment on which a run took itself back": (
        [
            {
                **back("2", "2"),
                "phases": [*open_run("2", "BC", migrate="failed0")["phases"], *back("2", "2")["phases"]],
            },
            run("1", "deployed", "AB", **WHOLE),
        ],
        [("1",), "A", True],
    ),
    "nothing behind what a rollback has named": ([back("2", "1"), run("1", "deployed", "AB", **WHOLE)], NOTHING),
    "a refused rollback changes nothing of that": (
        [
            run("3", "stopped", "AA", rollback="failed"),
            run("2", "rolled_back", "BB", rollback="ok"),
            run("1", "deployed", "AB", **WHOLE),
        ],
        NOTHING,
    ),
    "the last of two deployments, which left the database alone": (
        [
            run("2", "deployed", "BC", cleanup="unchanged", migrate="unchanged", pm2_reload="ok"),
            run("1", "deployed", "AB", **WHOLE),
        ],
        [("2",), "B", False],
    ),
    "a stopped run and the one that went on": (
        [
            run("2", "deployed", "AB", cleanup="unchanged", migrate="unchanged", pm2_reload="ok"),
            run("1", "stopped", "AB", cleanup="ok", migrate="ok", pm2_reload="failed"),
        ],
        [("2", "1"), "A", True],
    ),
    "unchanged, prepared and refused runs between": (
        [
            run("4", "unchanged", "BB", **IDLE),
            run("3", "stopped", "BC", prepare="failed"),
            run("2", "stopped", "BC", prepare="ok", cleanup="failed"),
            run("1", "deployed", "AB", **WHOLE),
        ],
        [("1",), "A", True],
    ),
    "a clean-up that failed after it had removed rows": (
        [run("1", "stopped", "AB", prepare="ok", cleanup="failed25")],
        [("1",), "A", True],
    ),
    "a purge, also one that was killed, is nothing to take back": (
        [
            run("3", "abandoned", "BB", purge="ok"),
            run("2", "unchanged", "BB", purge="ok"),
            run("1", "deployed", "AB", **WHOLE),
        ],
        [("1",), "A", True],
    ),
    "a purged deployment is still one": ([run("1", "deployed", "AB", **WHOLE, purged="ok")], [("1",), "A", True]),
    "an abandoned run that was purged is still one": ([run("1", "abandoned", "AB", purged="ok")], [("1",), "A", True]),
    "an abandoned run, of which only the catalog knows": ([run("1", "abandoned", "AB")], [("1",), "A", True]),
}


@pytest.mark.parametrize("case", CASES)
def test_takes_back(case: str) -> None:
    runs, expected = CASES[case]
    last = last_deployment(runs)
    assert [last and last.runs, last and last.commit_before, last and last.database] == expected


REACHED: dict[str, tuple[list[dict[str, Any]], list[Any]]] = {
    "its own work alone": ([open_run("1", "AB", prepare="ok", cleanup="failed0")], [("1",), "A"]),
    "what a stopped run and a killed one before it had begun": (
        [
            open_run("3", "BB", migrate="unchanged", pm2_reload="failed0"),
            run("2", "abandoned", "AB"),
            run("1", "stopped", "AB", cleanup="ok", migrate="failed0"),
        ],
        [("3", "2", "1"), "A"],
    ),
    "nothing of a completed deployment of the same commit": (
        [open_run("2", "BB", migrate="failed0"), run("1", "deployed", "AB", **WHOLE)],
        [("2",), "B"],
    ),
    "nothing of a stopped run that a later one has found complete": (
        [
            open_run("3", "BB", migrate="failed0"),
            run("2", "unchanged", "BB", **IDLE),
            run("1", "stopped", "AB", cleanup="ok", pm2_reload="ok"),
        ],
        [("3",), "B"],
    ),
    "nothing of a stopped run on the way to another commit": (
        [open_run("2", "AC", migrate="failed0"), run("1", "stopped", "AB", cleanup="ok")],
        [("2",), "A"],
    ),
    "nothing that a rollback has taken back": (
        [open_run("3", "AB", cleanup="failed25"), back("2", "1"), run("1", "stopped", "AB", cleanup="ok")],
        [("3",), "A"],
    ),
}


@pytest.mark.parametrize("case", REACHED)
def test_a_failed_run_takes_back(case: str) -> None:
    runs, expected = REACHED[case]
    reached = reached_by(runs, runs[0]["run_id"])
    assert reached is not None
    assert [reached.runs, reached.commit_before] == expected


def test_a_run_that_is_not_in_the_journal_has_reached_nothing() -> None:
    assert reached_by([run("1", "deployed", "AB", **WHOLE)], "20251110T053000Z-check") is None


def of_plan(plan_id: str, *runs: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**each, "plan_id": plan_id} for each in runs]


def test_other_plans_at_work_or_on_top_stand_in_the_way() -> None:
    ours = of_plan("ours", run("2", "deployed", "AB", **WHOLE))
    deployment = last_deployment(ours)
    on_top = of_plan("theirs", run("3", "deployed", "BC", **WHOLE))
    below = of_plan("theirs", run("1", "deployed", "0A", **WHOLE))
    same_commit = of_plan("theirs", run("3", "deployed", "BB", cleanup="ok", migrate="ok"))
    at_work = of_plan("theirs", open_run("4", "BC"))
    taken_back = of_plan("theirs", back("4", "3"), *on_top)

    def way(runs: list[dict[str, Any]]) -> list[str]:
        return in_the_way(runs, "ours", deployment)

    assert way([*on_top, *ours]) == ["3"]
    assert way([*at_work, *ours]) == ["4"]
    assert way([*ours, *below]) == []
    assert way([*same_commit, *ours]) == []
    assert way([*taken_back, *ours]) == []


def asked(run: dict[str, Any], **faults: list[int]) -> dict[str, Any]:
    """The run, with what its prepare was answered by the release that ran then."""
    steps = [{**step, "details": {**step["details"], "faults_before": faults}} for step in run["phases"][:1]]
    return {**run, "phases": steps + run["phases"][1:]}


def test_the_release_before_an_unfinished_run_says_which_faults_were_there() -> None:
    """The run before has switched the release and left a new fault: the release that runs now is no witness."""
    first = asked(run("1", "stopped", "AB", **WHOLE), monitoring=[], race=[500])
    second = asked(run("2", "stopped", "BB", prepare="ok", migrate="ok"), monitoring=[500])
    assert faults_before([open_run("3", "BB"), second, first], "3") == {"monitoring": [], "race": [500]}
    assert faults_before([open_run("3", "BB"), second], "3") == {"monitoring": [500]}


@pytest.mark.parametrize(
    "earlier", [run("1", "deployed", "AB", **WHOLE), run("1", "rolled_back", "AB", **WHOLE), run("1", "stopped", "AC")]
)
def test_a_run_that_goes_on_from_nothing_asks_the_release_that_runs(earlier: dict[str, Any]) -> None:
    assert faults_before([open_run("2", "BD"), asked(earlier, monitoring=[])], "2") == {}


def test_the_runs_that_were_taken_back_are_those_that_rollbacks_named() -> None:
    runs = [
        run("4", "deployed", "AB", **WHOLE),
        back("3", "2", "1"),
        run("2", "stopped", "AB", cleanup="ok"),
        run("1", "abandoned", "AB"),
    ]
    assert taken_back(runs) == {"1", "2"}


BEGUN: dict[str, tuple[list[dict[str, Any]], tuple[str, ...]]] = {
    "nothing": ([], ()),
    "a completed deployment is none": (
        [run("2", "deployed", "BC", **WHOLE), run("1", "deployed", "AB", **WHOLE)],
        (),
    ),
    "a stopped run of the same commit is the deployment's own": (
        [run("2", "deployed", "AB", **WHOLE), run("1", "stopped", "AB", cleanup="failed10")],
        (),
    ),
    "those of other commits, down to what was deployed": (
        [
            run("5", "deployed", "AE", **WHOLE),
            run("4", "stopped", "AD", cleanup="failed3"),
            run("3", "abandoned", "AC"),
            run("2", "stopped", "AC", cleanup="failed10"),
            run("1", "deployed", "ZA", **WHOLE),
        ],
        ("4", "3", "2"),
    ),
    "not what was taken back": (
        [
            run("4", "deployed", "AC", **WHOLE),
            back("3", "2"),
            run("2", "stopped", "AB", cleanup="failed10"),
            run("1", "stopped", "AX", cleanup="failed10"),
        ],
        ("1",),
    ),
}


@pytest.mark.parametrize("case", BEGUN)
def test_the_runs_that_a_further_rollback_would_take_back(case: str) -> None:
    runs, expected = BEGUN[case]
    assert begun_before(runs) == expected


NEEDED: dict[str, tuple[list[dict[str, Any]], dict[str, int], dict[str, int], dict[str, str]]] = {
    "the newest deployment alone": (
        [run("2", "deployed", "BC", **WHOLE), run("1", "deployed", "AB", **WHOLE)],
        {"1": 25, "2": 25},
        {},
        {"2": "rollback"},
    ),
    "with the stopped run that it went on from": (
        [run("2", "deployed", "AB", **WHOLE), run("1", "stopped", "AB", cleanup="ok", migrate="failed")],
        {"1": 25},
        {},
        {"1": "rollback", "2": "rollback"},
    ),
    "a stopped run of another commit beneath it": (
        [run("2", "deployed", "AC", **WHOLE), run("1", "stopped", "AB", cleanup="failed10")],
        {"1": 10, "2": 15},
        {},
        {"1": "rollback", "2": "rollback"},
    ),
    "an open run, and what it is deployed on": (
        [open_run("2", "BC", cleanup="ok"), run("1", "deployed", "AB", **WHOLE)],
        {"1": 25, "2": 25},
        {},
        {"1": "rollback", "2": "open"},
    ),
    "what a rollback had to leave": (
        [back("3", "2"), run("2", "deployed", "BC", **WHOLE), run("1", "deployed", "AB", **WHOLE)],
        {"2": 2},
        {"2": 23},
        {"2": "left_behind", "1": "rollback"},
    ),
    "of a rollback that all rows are back from nothing": (
        [back("3", "2"), run("2", "deployed", "BC", **WHOLE), run("1", "deployed", "AB", **WHOLE)],
        {},
        {"2": 25},
        {"1": "rollback"},
    ),
    "what a rollback that stopped has begun": (
        [run("2", "deployed", "BC", **WHOLE), run("1", "deployed", "AB", **WHOLE)],
        {"1": 15},
        {"1": 10},
        {"2": "rollback", "1": "half_restored"},
    ),
    "of an archive without a deployment every row": ([], {"1": 25, "0": 0}, {"0": 25}, {"1": "every_run"}),
}


@pytest.mark.parametrize("case", NEEDED)
def test_a_rollback_may_yet_need(case: str) -> None:
    runs, pending, restored, expected = NEEDED[case]
    assert needed_by_rollback(runs, pending, restored) == expected
