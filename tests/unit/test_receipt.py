"""Whether users lost requests in a cutover, and whether one can be watched closely at all."""

from __future__ import annotations

from typing import Any

import pytest
from at_most_one.errors import OperatorError
from at_most_one.service.capacity import Capacity, require
from at_most_one.service.receipt import Limits, refusal

GOOD: dict[str, Any] = {
    **{"ended_by": "signal", "requests": 200, "failures": 0, "failures_by_kind": {}, "longest_gap_ms": 40},
    **{"rate_per_s": 50.0, "p50_before_ms": 14.9, "p50_ms": 3.1},
}
LIMITS = Limits(1.0, 3000)


@pytest.mark.parametrize(
    ("requests", "percent", "failures"), [(200, 1.0, 2), (60, 1.0, 1), (60, 0.0, 0), (0, 1.0, 1), (1000, 0.25, 2)]
)
def test_how_many_may_fail(requests: int, percent: float, failures: int) -> None:
    assert Limits(percent, 3000).failures({**GOOD, "requests": requests}) == failures


def test_a_gap_may_be_as_long_as_the_probe_and_the_service_need_anyway() -> None:
    assert LIMITS.longest_gap_ms(GOOD) == 3000 + 20 + 15
    assert LIMITS.longest_gap_ms({**GOOD, "rate_per_s": 0.2, "p50_before_ms": None}) == 8000


@pytest.mark.parametrize(
    ("changes", "accepted"),
    [
        ({}, True),
        ({"failures": 2}, True),
        ({"failures": 3}, False),
        ({"longest_gap_ms": 3035}, True),
        ({"longest_gap_ms": 3036}, False),
        ({"requests": 0}, False),
        ({"ended_by": "max_s"}, False),
    ],
)
def test_what_is_accepted(changes: dict[str, Any], accepted: bool) -> None:
    assert (refusal({**GOOD, **changes}, LIMITS, "traffic.json") is None) is accepted


def test_the_refusal_says_what_was_seen_expected_and_to_be_done() -> None:
    lost = {**GOOD, "failures": 12, "failures_by_kind": {"reset": 10, "status_503": 2}, "ended_by": "controller_gone"}
    said = str(refusal({**lost, "p50_before_ms": None}, LIMITS, "/a/traffic.json"))
    assert said.startswith("12 of 200 requests failed during the cutover (reset 10, status_503 2), longest gap 40 ms")
    assert "took ? ms before and 3.1 ms during the cutover. The probe ended too early (controller_gone)." in said
    assert "at most 2 of them failed (healthcheck_max_failed_percent: 1.0), no gap above 3020 ms" in said
    assert "Next: read in /a/traffic.json what failed and when" in said
    assert said.endswith("otherwise ansible-playbook rollback.yml -l <environment>")
    assert "(none), longest gap" in str(refusal({**GOOD, "requests": 0}, LIMITS, "traffic.json"))


def test_a_service_that_is_too_slow_to_be_watched_stops_where_that_is_wanted() -> None:
    measured = Capacity(3, 0, 900.0, {"page": 900.0}, 1.1, 0.4, 3400, watched_closely=False)
    with pytest.raises(OperatorError) as stopped:
        require(measured, 2.0)
    assert stopped.value.seen.endswith("answers 1.1 requests a second, so the traffic probe may send 0.4.")
    assert stopped.value.expected.startswith("2 (pm2_reload_probe_min_rate_per_s)")
    assert stopped.value.next_step.endswith("deploy.yml -l <environment> -e pm2_reload_probe_below_min=warn")
    require(Capacity(3, 0, 9.0, {"page": 9.0}, 100.0, 33.3, 39, watched_closely=True), 2.0)
