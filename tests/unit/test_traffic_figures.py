"""Gaps, percentiles and the receipt, in tables."""

from __future__ import annotations

import pytest
from at_most_one.service.traffic_probe import Sample, Settings, Target, longest_gap, percentile, summarise

HUNDRED = [float(value) for value in range(1, 101)]


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([], 50, None),
        ([7.0], 1, 7.0),
        ([7.0], 99, 7.0),
        ([1.0, 2.0], 50, 1.0),
        ([1.0, 2.0], 51, 2.0),
        (HUNDRED, 50, 50.0),
        (HUNDRED, 95, 95.0),
        (HUNDRED, 99, 99.0),
        (HUNDRED, 100, 100.0),
        ([*HUNDRED, 101.0], 99, 100.0),
    ],
)
def test_percentile(values: list[float], percent: float, expected: float | None) -> None:
    assert percentile(values, percent) == expected


@pytest.mark.parametrize(
    ("successes", "expected"),
    [
        ([], 10.0),  # nothing ever answered: all of it is one gap
        ([5.0], 5.0),
        ([1.0, 2.0, 9.0], 7.0),
        ([9.0, 1.0, 2.0], 7.0),  # the order in which they are recorded does not matter
        ([4.0, 6.0], 4.0),  # from the start to the first
        ([1.0, 3.0, 4.0], 6.0),  # from the last to the end
        ([2.0, 4.0, 6.0, 8.0, 12.0], 2.0),  # an answer after the end closes the gap at the end
        ([-1.0, 5.0], 5.0),
    ],
)
def test_longest_gap(successes: list[float], expected: float) -> None:
    assert longest_gap(0.0, successes, 10.0) == expected


def test_receipt() -> None:
    targets = (Target("page", "http://h/", "GET", (200,)), Target("api", "http://h/api", "GET", (200,)))
    samples = [
        Sample(0, 100.0, 100.1, None, "old"),
        Sample(1, 101.0, 101.2, None, "new"),
        Sample(0, 102.0, 102.3, None, "old"),
        Sample(1, 103.0, 107.0, "timeout", None),
        Sample(0, 104.0, 104.0, "status_503", "new"),
        Sample(1, 105.0, 107.5, None, "new"),
    ]
    receipt = summarise(samples, Settings(targets, 1.0), 100.0, 108.0, 1_762_750_800.0)
    assert (receipt["requests"], receipt["failures"]) == (6, 2)
    assert receipt["failures_by_kind"] == {"status_503": 1, "timeout": 1}
    assert receipt["longest_gap_ms"] == 5200  # from 102.3 to 107.5
    assert (receipt["p50_ms"], receipt["p99_ms"]) == (200.0, 2500.0)  # from the moment each was due
    assert receipt["started_at"] == "2025-11-10T05:00:00.000+00:00"
    assert receipt["last_old_answer"] == "2025-11-10T05:00:02.300+00:00"
    assert receipt["builds"] == {
        "old": {"answers": 2, "first": "2025-11-10T05:00:00.100+00:00", "last": "2025-11-10T05:00:02.300+00:00"},
        "new": {"answers": 3, "first": "2025-11-10T05:00:01.200+00:00", "last": "2025-11-10T05:00:07.500+00:00"},
    }
    assert [(step["from_s"], step["requests"], step["failures"], step["slowest_ms"]) for step in receipt["course"]] == [
        (0, 1, 0, 100.0),
        (1, 1, 0, 200.0),
        (2, 1, 0, 300.0),
        (3, 1, 1, None),  # by the moment it was due
        (4, 1, 1, None),
        (5, 1, 0, 2500.0),
        (6, 0, 0, None),
        (7, 0, 0, None),
    ]
    assert receipt["targets"]["api"]["failures_by_kind"] == {"timeout": 1}
    assert receipt["targets"]["page"]["longest_gap_ms"] == 5700
    assert [(one["name"], one["kind"]) for one in receipt["first_failures"]] == [
        ("page", "status_503"),
        ("api", "timeout"),
    ]


def test_receipt_of_nothing() -> None:
    receipt = summarise([], Settings((Target("page", "http://h/", "GET", (200,)),), 1.0), 0.0, 3.0, 0.0)
    assert (receipt["requests"], receipt["longest_gap_ms"], receipt["p50_ms"]) == (0, 3000, None)
    assert receipt["last_old_answer"] is None


@pytest.mark.parametrize(("seconds", "step", "steps"), [(0.4, 1, 1), (60, 1, 60), (61, 2, 31), (1800, 30, 60)])
def test_the_course_is_never_longer_than_a_page_and_leaves_nothing_out(seconds: float, step: int, steps: int) -> None:
    page = (Target("page", "http://h/", "GET", (200,)),)
    dues = [seconds * number / 500 for number in range(501)]
    samples = [Sample(0, due, due + 0.1, "reset" if number % 7 == 0 else None, None) for number, due in enumerate(dues)]
    course = summarise(samples, Settings(page, 1.0), 0.0, seconds, 0.0)["course"]
    assert [one["from_s"] for one in course] == [step * number for number in range(steps)]
    assert (sum(one["requests"] for one in course), sum(one["failures"] for one in course)) == (501, 72)
