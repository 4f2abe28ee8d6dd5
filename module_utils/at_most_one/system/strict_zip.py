"""``zip`` that refuses iterables of different lengths: Python has it only from 3.10, and a host may have 3.9."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

_MISSING = object()


def strict_zip(*iterables: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
    """Pair up the items. Raises ValueError once one iterable ends before another: a condition must lose no part."""
    for items in itertools.zip_longest(*iterables, fillvalue=_MISSING):
        if any(item is _MISSING for item in items):
            raise ValueError("iterables of different lengths")
        yield items
