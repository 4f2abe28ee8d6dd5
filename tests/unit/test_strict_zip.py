"""Items are paired up, and iterables of different lengths are refused wherever the shorter one stands."""

from __future__ import annotations

import pytest
from at_most_one.system.strict_zip import strict_zip


def test_items_are_paired_up() -> None:
    assert list(strict_zip("ab", [1, None], (True, False))) == [("a", 1, True), ("b", None, False)]
    assert list(strict_zip([], [])) == []


@pytest.mark.parametrize(("one", "other"), [("ab", "a"), ("a", "ab"), ("", "a")])
def test_a_shorter_one_is_refused(one: str, other: str) -> None:
    with pytest.raises(ValueError, match="different lengths"):
        list(strict_zip(one, other))
