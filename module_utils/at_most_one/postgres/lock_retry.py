"""How long to wait before a lock is asked for again."""

from __future__ import annotations

import random


def pause_s(attempt: int, *, first_s: float, longest_s: float) -> float:
    """Seconds after ``attempt`` failures: doubling from ``first_s`` up to ``longest_s``, each time half of it to half
    more. Two deployments, or one and a nightly job, must not meet again and again."""
    return random.uniform(0.5, 1.5) * min(first_s * float(2**attempt), longest_s)  # noqa: S311  (jitter, not a secret)
