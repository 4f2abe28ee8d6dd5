"""How many rows the next batch takes, to the row: what each part of the formula is there for."""

from __future__ import annotations

import pytest
from at_most_one.duplicates.batch_size import next_size


@pytest.mark.parametrize(
    ("rows", "took_ms", "target_ms", "expected"),
    [
        (100, 50, 50, 80),  # four fifths of the time, so that the next one is not late
        (100, 40, 50, 100),
        (100, 20, 50, 200),
        (100, 1, 50, 200),  # at most twice as many
        (100, 160, 50, 25),
        (100, 9_999, 50, 25),  # at least a quarter
        (100, 0, 0.1, 80),  # a batch that took no time took a tenth of a millisecond
        (100, 0.1, 0.1, 80),
        (900, 20, 50, 1_000),
        (12, 50, 50, 10),
    ],
)
def test_as_many_as_last_for_most_of_the_time(rows: float, took_ms: float, target_ms: float, expected: float) -> None:
    assert next_size(rows, took_ms, target_ms, smallest=10, largest=1_000) == pytest.approx(expected)
