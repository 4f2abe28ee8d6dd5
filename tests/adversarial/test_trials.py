"""A thousand trials by `make adversarial`, a fixed sample of them here; and the controls: the harness sees the faults.

ADVERSARIAL_TRIALS=N runs N trials, prints K of N and writes .lab/adversarial.json.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import pytest
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Connection, Login, connect
from psycopg2 import sql

from tests.adversarial.trial import Result, Trial, run, summary

RECEIPT = Path(__file__).parents[2] / ".lab" / "adversarial.json"
SAMPLE = 40
WITHOUT_FENCE = 3

_own_login: list[Login] = []  # of a process that runs trials


def _take_login(logins: Any) -> None:
    _own_login.append(logins.get())


def _run_trial(trial: Trial, fenced: bool) -> Result:
    return run(_own_login[0], trial, fenced=fenced)


def run_all(
    logins: Sequence[Login], seeds: Sequence[int], say: Callable[[str], None], *, fenced: bool = True
) -> list[Result]:
    """The trials of these seeds, side by side, each process in its own database."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    for login in logins:
        queue.put(login)
    results: list[Result] = []
    with ProcessPoolExecutor(len(logins), context, _take_login, (queue,)) as pool:
        for done in as_completed([pool.submit(_run_trial, Trial.of(seed), fenced) for seed in seeds]):
            results.append(done.result())
            if not results[-1].held and fenced:
                say(f"seed {results[-1].trial.seed}: {results[-1].faults}")
            if len(results) % 100 == 0 or len(results) == len(seeds):
                say(f"{sum(result.held for result in results)} of {len(results)} trials held")
    return sorted(results, key=lambda result: result.trial.seed)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    def aloud(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", end=" ", flush=True)

    return aloud


def test_every_trial_ends_with_the_rule_in_force_and_no_row_lost(
    logins: list[Login], say: Callable[[str], None]
) -> None:
    asked = os.environ.get("ADVERSARIAL_TRIALS")
    seeds = range(int(asked or SAMPLE))
    say(f"seeds {seeds.start} to {seeds.stop - 1}")
    results = run_all(logins, seeds, say)
    found = summary(results)
    if asked:
        RECEIPT.parent.mkdir(exist_ok=True)
        RECEIPT.write_text(json.dumps(found, indent=2) + "\n")
    say(
        f"{found['held']} of {found['trials']} held, {found['first_attempt']} at the first attempt; by isolation level"
        f" {found['levels']}; rounds of the clean-up {found['rounds']}; {found['removed']} rows cleaned up;"
        f" {found['writers']}"
    )
    assert found["failed"] == []
    assert found["held"] == found["trials"] == len(seeds)
    assert found["first_attempt"] == found["trials"]
    assert all(level["trials"] for level in found["levels"].values())
    assert found["removed"] >= len(seeds), "there was nothing to clean up: the trials would prove nothing"
    assert found["writers"]["refused"] > len(seeds), "the fence had nothing to do: the trials would prove nothing"
    assert found["writers"]["in two phases"] > len(seeds)
    with connect(logins[0]) as connection:
        assert connection.server_version < 150000 or found["writers"]["merged"] > len(seeds)
    assert found["writers"]["inserted"] > 10 * len(seeds), "the service stood still"


def test_control_without_the_fence_the_same_trials_fail(logins: list[Login], say: Callable[[str], None]) -> None:
    results = run_all(logins, range(2, 2 + WITHOUT_FENCE), say, fenced=False)
    failed = [result for result in results if not result.held]
    assert len(failed) >= WITHOUT_FENCE / 2  # measured: all
    assert any("attempts were needed" in fault for result in failed for fault in result.faults)
    lost = [fault for result in results for fault in result.faults if "committed" in fault or "nobody" in fault]
    assert lost == [], "without the fence the rule is late, but no row is lost either"


def _statement(text: str) -> Callable[[Connection, Plan], None]:
    def meddle(connection: Connection, plan: Plan) -> None:
        table = sql.Identifier(plan.schema, plan.table)
        with connection, connection.cursor() as cursor:
            cursor.execute(sql.SQL(text).format(table=table))
            assert cursor.rowcount == 1

    return meddle


_ONE = "(SELECT id FROM {table} ORDER BY id LIMIT 1)"
_ONE_ARCHIVED = "(SELECT max(id) FROM at_most_one.archived_row)"


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (f"DELETE FROM {{table}} WHERE id = {_ONE}", "1 committed rows are nowhere"),
        (f"UPDATE {{table}} SET note = 'x' WHERE id = {_ONE}", "1 rows differ from what was committed last"),
        ("INSERT INTO {table} (serial, status) VALUES ('AED-x', 'completed')", "1 rows come from nobody"),
        (f"DELETE FROM at_most_one.archived_row WHERE id = {_ONE_ARCHIVED}", "1 committed rows are nowhere"),
        (
            f'UPDATE at_most_one.archived_row SET "row" = "row" || \'{{{{"note": "x"}}}}\' WHERE id = {_ONE_ARCHIVED}',
            "contradicts itself",
        ),
        (
            "INSERT INTO {table} (id, serial, status) SELECT (\"row\" ->> 'id')::uuid, 'AED-x', 'completed'"
            f" FROM at_most_one.archived_row WHERE id = {_ONE_ARCHIVED}",
            "1 rows are in the table and in the archive",
        ),
    ],
)
def test_control_the_account_misses_a_row_that_is_lost_changed_or_invented(
    logins: list[Login], statement: str, words: str
) -> None:
    result = run(logins[0], Trial.of(2), meddle=_statement(statement))
    assert any(words in fault for fault in result.faults), result.faults
