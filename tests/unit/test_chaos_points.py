"""Which points the chaos tests strike, and which make a sample: the tool that measures must not leave any out."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

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

# Two tasks around each task that a sample may not leave out.
NAMED = {
    way: [name for task in tasks.values() for name in ("Before", task, "After")] for way, tasks in _NO_RETURN.items()
}
STATEMENTS = {
    way: [(2, f"{begins} the rest") for its_way, begins in _NO_RETURN_STATEMENTS if its_way == way]
    for way in ("deploy", "concurrent", "rollback")
}


def course(way: str) -> Course:
    names = NAMED.get(way, NAMED["deploy"])
    tasks = [{"number": n, "play": f"({n // 6}/7)", "name": f"role : {name}"} for n, name in enumerate(names, 1)]
    calls = [{"number": task["number"], "module": "write_fence", "arguments": {}} for task in tasks]
    return Course(tasks, [(1, "BEGIN"), *STATEMENTS[way], (2, "BEGIN"), (2, "BEGIN")], calls)


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


@pytest.mark.parametrize("size", [18, 25, 40])
def test_a_sample_is_fixed_and_holds_the_points_of_no_return(courses: Mapping[str, Course], size: int) -> None:
    points = every(courses)
    chosen = sample(points, size)
    assert chosen == sample(points, size)
    assert len(set(chosen)) == len(chosen) == min(size, len(points))
    assert set(of_no_return(points)) <= set(chosen)
    assert {point.way for point in chosen if point.blow == "restart"} == {"deploy", "rollback"}
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
