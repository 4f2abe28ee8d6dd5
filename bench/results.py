"""What a bench says: figures, the goals they meet or miss, and how both are written down."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

MEASURED = Path(__file__).with_name("results.json")


@dataclass(frozen=True)
class Result:
    """One figure. ``goal`` is the most it may be, in the same unit; without one the figure is only told.

    ``value`` is the median of ``repetitions`` measurements, unless ``name`` says otherwise.
    """

    bench: str
    name: str
    value: float
    unit: str
    goal: float | None
    repetitions: int
    holds: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "holds", self.goal is None or self.value <= self.goal)


def median(values: Iterable[float]) -> float:
    """The middle value: one disturbed repetition does not move it."""
    return statistics.median(values)


def percentile(sorted_values: Sequence[float], percent: float) -> float:
    """The smallest value that at least ``percent`` % of the values do not exceed (nearest rank)."""
    if not sorted_values:
        raise ValueError("no values, no percentile")
    rank = -(-len(sorted_values) * percent // 100)
    return sorted_values[max(int(rank), 1) - 1]


def factor(one: float, other: float) -> float:
    """How far apart two positive figures are, whichever is the larger."""
    return max(one / other, other / one)


def number(value: float) -> str:
    """A figure with the digits it deserves."""
    for digits, least in ((0, 100), (1, 10), (2, 0.1), (3, 0.01)):
        if abs(value) >= least:
            return f"{value:,.{digits}f}"
    return f"{value:.4f}" if value else "0"


def load(path: Path = MEASURED) -> list[Result]:
    """The results of before; none when there is no file."""
    if not path.exists():
        return []
    return [_result(entry) for entry in json.loads(path.read_text(encoding="utf-8"))]


def _result(entry: Mapping[str, Any]) -> Result:
    return Result(**{name: value for name, value in entry.items() if name != "holds"})


def merged(before: Iterable[Result], new: Sequence[Result], benches: Sequence[str]) -> list[Result]:
    """All results in the order of ``benches``: of those measured now the new ones, of the others those of before."""
    measured = {result.bench for result in new}
    every = [*(result for result in before if result.bench not in measured), *new]
    return [result for bench in benches for result in every if result.bench == bench]


def save(results: Sequence[Result], path: Path = MEASURED) -> None:
    """Write what machines read."""
    path.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n", encoding="utf-8")


def markdown(results: Sequence[Result]) -> str:
    """The table for docs/bench.md."""
    lines = ["| what | value | unit | goal | holds | repetitions |", "|---|---:|---|---:|---|---:|"]
    bench = None
    for result in results:
        if result.bench != bench:
            bench = result.bench
            lines.append(f"| **{bench}** | | | | | |")
        goal = "" if result.goal is None else f"≤ {number(result.goal)}"
        holds = "" if result.goal is None else "yes" if result.holds else "**no**"
        lines.append(
            f"| {result.name} | {number(result.value)} | {result.unit} | {goal} | {holds} | {result.repetitions} |"
        )
    return "\n".join(lines) + "\n"
