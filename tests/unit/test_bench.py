"""The benches' own arithmetic and papers: what they measure is theirs, how it is judged and written is tested here."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from bench import __main__ as command
from bench import documents, peak, profile, results
from bench.cases import writers
from bench.playbooks import Played, Task
from bench.results import Result

RESULTS = [
    Result("cleanup", "ratio to one statement", 1.25, "ratio", 1.5, 5),
    Result("cleanup", "a surplus row of 1,000", 1234.5, "µs", None, 9),
    Result("writers", "p99.9 of a visit", 100.5, "ms", 100, 5),
]


@pytest.mark.parametrize(
    ("value", "goal", "holds"), [(1.5, 1.5, True), (1.5001, 1.5, False), (9e9, None, True), (1, 0, False), (0, 0, True)]
)
def test_a_goal_is_the_most_that_a_value_may_be(value: float, goal: float | None, holds: bool) -> None:
    assert Result("b", "n", value, "ratio", goal, 3).holds is holds


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([5.0], 99.9, 5.0),
        (list(range(1, 1001)), 99.9, 999),
        (list(range(1, 1001)), 50, 500),
        ([1.0, 2.0, 3.0], 50, 2.0),
    ],
)
def test_a_percentile_is_one_of_the_values(values: list[float], percent: float, expected: float) -> None:
    assert results.percentile(values, percent) == expected


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        results.percentile([], 50)


@pytest.mark.parametrize(("one", "other"), [(100.0, 250.0), (250.0, 100.0)])
def test_a_prediction_that_is_too_low_is_as_far_off_as_one_that_is_too_high(one: float, other: float) -> None:
    assert results.factor(one, other) == 2.5


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.00123, "0.0012"), (0.0571, "0.057"), (-0.5, "-0.50"), (12.34, "12.3"), (1234.5, "1,234")],
)
def test_a_figure_has_the_digits_it_deserves(value: float, text: str) -> None:
    assert results.number(value) == text


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    assert results.load(path) == []
    results.save(RESULTS, path)
    assert results.load(path) == RESULTS
    assert '"holds": false' in path.read_text()


def test_a_bench_that_did_not_run_keeps_its_results_and_one_that_is_gone_loses_them() -> None:
    new = [Result("writers", "p99.9 of a visit", 50, "ms", 100, 5)]
    gone = Result("earlier", "something", 1, "ms", None, 1)
    assert results.merged([gone, *RESULTS], new, ["cleanup", "price", "writers"]) == [*RESULTS[:2], *new]


def test_the_page_keeps_its_words_and_gets_the_new_figures() -> None:
    text = f"# Title\n\nBefore.\n\n{documents.BEGIN}stale\n{documents.END}\nAfter.\n"
    page = documents.page(text, RESULTS)
    assert page.startswith("# Title\n\nBefore.\n")
    assert page.endswith("\nAfter.\n")
    assert "stale" not in page
    assert "| ratio to one statement | 1.25 | ratio | ≤ 1.50 | yes | 5 |" in page
    assert "| p99.9 of a visit | 100 | ms | ≤ 100 | **no** | 5 |" in page
    assert documents.page(page, RESULTS) == page


def test_the_page_in_the_repository_shows_the_results_in_the_repository() -> None:
    page = documents.PAGE.read_text(encoding="utf-8")
    assert page == documents.page(page, results.load()), "run `make bench`: docs/bench.md and results.json differ"
    assert {result.bench for result in results.load()} <= set(command.case_names())


def test_every_case_can_be_chosen_and_nothing_else() -> None:
    names = command.case_names()
    assert {"cleanup", "price", "writers"} <= set(names)
    assert command.chosen("", names) == names
    assert command.chosen("writers, cleanup", names) == ["cleanup", "writers"]
    with pytest.raises(SystemExit, match="no bench writer\\. Expected: BENCH=cleanup,"):
        command.chosen("writer", names)


def test_a_new_case_is_a_file_with_one_function(tmp_path: Path) -> None:
    case: Any = ModuleType("plain")
    case.measure = lambda bench: [bench.result("one thing", 2.0, "ms", goal=1, repetitions=3)]
    measured = command.measure({"plain": case}, scale=1)
    assert measured == [Result("plain", "one thing", 2.0, "ms", 1, 3)]
    documents.draw([*RESULTS, *measured], {"plain": case}, tmp_path / "picture.svg")  # without a panel of its own
    assert not (tmp_path / "picture.svg").exists()


def test_equal_figures_make_an_equal_picture(tmp_path: Path) -> None:
    case: Any = ModuleType("drawn")
    case.draw = lambda panel, results: panel.barh(list(results), [result.value for result in results.values()])
    paths = [tmp_path / "one.svg", tmp_path / "two.svg"]
    for path in paths:
        documents.draw([Result("drawn", "a figure", 3, "ms", None, 1)], {"drawn": case}, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_latency_of_a_visit_counts_where_it_was_under_way() -> None:
    met = writers.Writers([], visits=[(0.0, 0.5), (0.9, 0.3), (1.5, 0.002), (1.9, 3.0), (2.1, 0.1)])
    assert met.latencies_ms(1.0, 2.0) == [2.0, 300.0, 3000.0]


def test_peak_memory_is_the_programs_own() -> None:
    ballast = bytearray(200_000_000)
    small = peak.run([sys.executable, "-c", "print(input())"], "hello\n")
    large = peak.run([sys.executable, "-c", "x = bytearray(100_000_000); print(len(x))"], "")
    assert (small.code, small.output) == (0, "hello\n")
    assert small.peak_kb < 60_000 < 100_000 < large.peak_kb < 160_000
    assert len(ballast) == 200_000_000
    assert peak.run([sys.executable, "-c", "import sys; sys.exit(3)"], "").code == 3


def test_a_profile_names_the_slowest_and_counts_the_rest() -> None:
    tasks = [Task(0, name, name, 0.0, float(seconds), answers=1) for seconds, name in enumerate(("a", "b", "c"))]
    console = Console(width=150, record=True)
    console.print(profile.slowest(Played(4.0, 3, ["(0/7) Open"], tasks), 1))
    shown = console.export_text()
    lines = {line.split("│")[2].strip(): line.split("│")[5].strip() for line in shown.splitlines() if "│ " in line}
    assert lines == {
        "c": "2.00",
        "2 other tasks": "1.00",
        "starting, reading the playbook, ending": "1.00",
        "the whole": "4.00",
    }
