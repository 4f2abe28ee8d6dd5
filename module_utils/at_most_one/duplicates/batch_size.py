"""How many rows the next batch takes, by how long the last one took."""

from __future__ import annotations


def next_size(rows: float, took_ms: float, target_ms: float, *, smallest: float, largest: float) -> float:
    """As many rows as last for four fifths of ``target_ms``; at most twice as many as before, at least a quarter."""
    factor = min(2.0, max(0.25, target_ms * 0.8 / max(took_ms, 0.1)))
    return min(largest, max(smallest, rows * factor))
