"""Which points the chaos tests strike, and which make a sample: the tool that measures must not leave any out."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.chaos.blows import BLOWS
from tests.chaos.points import (
    _NO_RETURN,
    _NO_RETURN_STATEMENTS,
    Course,
    alternating,
    essential,
    every,
    of_no_return,
    sample,
)
from tests.chaos.proxy import shape

PHASES = [
    *("Open the run", "Prepare", "Clean up", "Migrate", "Verify"),
    *("Reload the application", "Check the health", "Close the run"),
]
# Two tasks around each task that a sample may not leave out.
NAMED = {
    way: [name for task in tasks.values() for name in ("Before", task, "After")] for way, tasks in _NO_RETURN.items()
}
TITLES = {
    "deploy": [f"({n}/7) {title}" for n, title in enumerate(PHASES)],
    "rollback": ["(0/2) Open the run", "(1/2) Roll back", "(2/2) Close the run"],
}
STATEMENTS = {
    way: [(2, f"{begins} the rest") for its_way, begins in _NO_RETURN_STATEMENTS if its_way == way]
    for way in ("deploy", "concurrent", "rollback")
}


def course(way: str) -> Course:
    names, titles = NAMED.get(way, NAMED["deploy"]), TITLES.get(way, TITLES["deploy"])
    plays = [titles[n * len(titles) // (len(names) + 1)] for n in range(1, len(names) + 1)]
    tasks = [
        {"number": n, "play": play, "name": f"role : {name}"}
        for n, (play, name) in enumerate(zip(plays, names, strict=True), 1)
    ]
    calls = [{"number": task["number"], "module": "write_fence", "arguments": {}} for task in tasks]
    last = [(n, "COMMIT") for n, _ in enumerate(names, 1)]
    return Course(tasks, [(1, "BEGIN"), *STATEMENTS[way], (2, "BEGIN"), (2, "BEGIN"), *last], calls)


@pytest.fixture
def courses() -> Mapping[str, Course]:
    return {way: course(way) for way in ("deploy", "concurrent", "rollback")}


def test_every_boundary_is_a_point_or_covered_by_one(courses: Mapping[str, Course]) -> None:
    points = every(courses)
    assert len({point.id for point in points}) == len(points)
    kills = [point for point in points if point.blow == "kill"]
    assert len(kills) == sum(len(courses[way].tasks) for way in _NO_RETURN), "each of these tasks did something"
    assert {point.way for point in points if point.blow == "restart"} == {"deploy", "rollback"}
    ends = [(point.way, point.shape) for point in points if point.blow == "end"]
    assert ends == [(way, shape) for way in courses for _, shape in STATEMENTS[way]]


def test_boundaries_are_one_point_where_nothing_was_done_on_a_host(courses: Mapping[str, Course]) -> None:
    tasks = courses["deploy"].tasks[:5]
    did = [
        {"number": 1, "module": "write_fence", "arguments": {}},
        {"number": 3, "module": "ansible.builtin.set_fact", "arguments": {}},
        {"number": 4, "module": "ansible.builtin.file", "arguments": {}},
    ]  # 2 was skipped
    kills = [point for point in every({"deploy": Course(tasks, [], did)}) if point.blow == "kill"]
    assert [point.task for point in kills] == [1, 4, 5]
    covered = [name for point in kills for name in point.covers]
    assert covered == [f"{task['play']}: {task['name']}" for task in tasks], "no boundary is left out"


def test_what_costs_minutes_comes_once_a_phase(courses: Mapping[str, Course]) -> None:
    points = every(courses)

    def phases(way: str, blow: str) -> list[str]:
        return [point.name.partition(" ")[0] for point in points if (point.way, point.blow) == (way, blow)]

    all_of_them = [f"({n}/7)" for n in range(8)]
    assert phases("deploy", "disk") == phases("deploy", "loss") == phases("deploy", "restart") == all_of_them
    assert phases("deploy", "freeze") == phases("deploy", "failover") == all_of_them[1:], "it is open"
    assert phases("deploy", "daemon") == all_of_them[1:-1], "PM2 is not asked once the service was proven"
    assert phases("rollback", "freeze") == ["(1/2)", "(2/2)"]
    assert phases("rollback", "daemon") == ["(1/2)"]
    assert {point.blow for point in points if point.way == "concurrent"} == {"end"}


def test_a_standby_lacks_what_the_two_phases_before_have_said_to_the_database(courses: Mapping[str, Course]) -> None:
    whole = courses["deploy"]
    silent = ("(5/7)", "(6/7)")  # the reload and the health check ask no database
    play_of = {task["number"]: task["play"][:5] for task in whole.tasks}
    statements = [entry for entry in whole.statements if play_of[entry[0]] not in silent]
    points = every({"deploy": Course(whole.tasks, statements, whole.calls)})
    since = {play_of[point.task]: play_of[point.since] for point in points if point.blow == "failover"}
    assert since == {
        **{"(1/7)": "(0/7)", "(2/7)": "(0/7)", "(3/7)": "(1/7)", "(4/7)": "(2/7)"},
        **{"(5/7)": "(3/7)", "(6/7)": "(3/7)", "(7/7)": "(3/7)"},
    }


def test_a_phase_that_has_another_title_now_is_no_silent_gap(courses: Mapping[str, Course]) -> None:
    points = [point for point in every(courses) if ") Clean up: " not in point.name or point.blow != "loss"]
    with pytest.raises(ValueError, match="no loss is in the phase 'Clean up'"):
        sample(points, 21)


@pytest.mark.parametrize("size", [21, 25, 40])
def test_a_sample_is_fixed_and_holds_the_points_of_no_return(courses: Mapping[str, Course], size: int) -> None:
    points = every(courses)
    chosen = sample(points, size)
    assert chosen == sample(points, size)
    assert len(set(chosen)) == len(chosen) == min(size, len(points))
    assert set(of_no_return(points)) <= set(chosen)
    assert {point.way for point in chosen if point.blow == "restart"} == {"deploy", "rollback"}
    assert {point.blow for point in chosen} == set(BLOWS)
    assert sorted(alternating(chosen), key=points.index) == chosen


def test_what_costs_rows_or_requests_is_a_part_of_the_points_of_no_return(courses: Mapping[str, Course]) -> None:
    points = every(courses)
    chosen = essential(points)
    assert set(chosen) < set(of_no_return(points))
    assert [(point.way, point.blow) for point in sorted(chosen, key=points.index)] == [
        ("deploy", "kill"),
        ("deploy", "kill"),
        ("deploy", "end"),
        ("concurrent", "end"),
        ("rollback", "kill"),
        ("rollback", "end"),
    ]


def test_a_task_that_has_another_name_now_is_no_silent_gap(courses: Mapping[str, Course]) -> None:
    points = [point for point in every(courses) if not any("Close the run" in name for name in point.covers)]
    with pytest.raises(ValueError, match="Close the run"):
        of_no_return(points)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT 1 WHERE x = 'a'", "SELECT 22 WHERE x = 'b''c'"),
        ("EXECUTE batch (1, 500)", "EXECUTE batch (501, 1000)"),
        ("SELECT  1\n", "SELECT 2"),
    ],
)
def test_what_differs_from_run_to_run_is_not_in_the_shape(one: str, other: str) -> None:
    assert shape(one) == shape(other)


def test_different_statements_keep_different_shapes() -> None:
    assert shape("DELETE FROM a") != shape("DELETE FROM b")
