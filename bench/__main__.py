"""``make bench``: run the benches, print the table, write results.json, docs/bench.md and the picture.

BENCH=cleanup runs one (or several, separated by commas) and keeps the other benches' results. BENCH_SCALE=0.01 tries
them small and writes nothing. The exit code is 1 when a goal is missed.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import signal
import sys
from collections.abc import Sequence
from types import ModuleType

from rich.console import Console
from rich.table import Table

from . import cases, documents, results
from .results import Result
from .run import Bench


def main() -> int:
    """The command line; its options are the environment's, as make passes them."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # by way of every `finally`
    subjects = {name: importlib.import_module(f"{cases.__name__}.{name}") for name in case_names()}
    wanted = chosen(os.environ.get("BENCH", ""), list(subjects))
    scale = float(os.environ.get("BENCH_SCALE") or 1)
    measured = measure({name: subjects[name] for name in wanted}, scale)
    console = Console()
    console.width = max(console.width, 0 if console.is_terminal else 150)  # a log is as wide as the table
    console.print(table(measured))
    if scale == 1:
        every = results.merged(results.load(), measured, list(subjects))
        results.save(every)
        documents.write(every, subjects)
    missed = [result.name for result in measured if not result.holds]
    if missed:
        print(f"make bench: missed: {'; '.join(missed)}. Expected: every goal to hold.", file=sys.stderr)
    return 1 if missed else 0


def case_names() -> list[str]:
    """The files of bench/cases/."""
    return sorted(module.name for module in pkgutil.iter_modules(cases.__path__))


def chosen(wanted: str, names: Sequence[str]) -> list[str]:
    """The benches that BENCH names; all of them when it is empty."""
    asked = [name.strip() for name in wanted.split(",") if name.strip()]
    unknown = sorted(set(asked) - set(names))
    if unknown:
        raise SystemExit(
            f"make bench: no bench {', '.join(unknown)}. Expected: BENCH={','.join(names)} or some of them."
        )
    return [name for name in names if name in asked or not asked]


def measure(subjects: dict[str, ModuleType], scale: float) -> list[Result]:
    """One after the other: they share the machine."""
    measured: list[Result] = []
    with Bench(scale) as bench:
        for name, subject in subjects.items():
            bench.subject = name
            measured += subject.measure(bench)
    return measured


def table(measured: Sequence[Result]) -> Table:
    """What a person sees."""
    drawn = Table("bench", "what", "unit", "repetitions")
    for name in ("value", "goal"):
        drawn.add_column(name, justify="right")
    drawn.add_column("holds")
    for result in measured:
        goal = "" if result.goal is None else f"≤ {results.number(result.goal)}"
        holds = "" if result.goal is None else "[green]yes" if result.holds else "[bold red]no"
        value = results.number(result.value)
        drawn.add_row(result.bench, result.name, result.unit, str(result.repetitions), value, goal, holds)
    return drawn


if __name__ == "__main__":
    sys.exit(main())
