"""The order of the clean-up: the fence, the rounds, and where it stops. tests/database shows it on a real table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from at_most_one.cleanup import phase
from at_most_one.cleanup.account import Account
from at_most_one.duplicates import surplus_rows
from at_most_one.duplicates.surplus_rows import Removal, Report
from at_most_one.errors import OperatorError
from at_most_one.fence import write_fence
from at_most_one.fence.write_fence import Change
from at_most_one.indexes import verification
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Connection

UP = Change("raised", "raised", [], 0)
RAISED = Change("lowered", "raised", ["CREATE UNIQUE INDEX"], 1, exempt=2)
TOO_MANY = Change("lowered", "lowered", [], 0, surplus_first=True)
ROWS = [["a", "hash"], ["b", "hash"]]
REMOVAL = Removal(
    removed=2,
    archived=2,
    kept_meanwhile=0,
    gone_meanwhile=0,
    groups_left=0,
    rows_left=0,
    repointed=0,
    batches=1,
    seconds=0.1,
    longest_batch_ms=12,
    removed_examples=[],
    kept_examples=[],
    unarchived=[],
    groups=[],
    statements=["DELETE"],
    warnings=[],
)


@dataclass
class Database:
    """Answers from lists, the last one again and again; ``calls`` is what was asked of it."""

    exact: bool = False
    raised: list[Change] = field(default_factory=lambda: [RAISED])
    tightened: list[Change] = field(default_factory=lambda: [UP])
    removal: Callable[[], Removal] = lambda: REMOVAL
    calls: list[str] = field(default_factory=list)
    removed: list[Any] = field(default_factory=list)
    done: phase.Progress = field(default_factory=lambda: phase.Progress(Account()))

    def clean(self, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        def answers(name: str, given: list[Change]) -> Callable[..., Change]:
            def answer(*_: Any, **how: Any) -> Change:
                self.calls.append(name)
                return given.pop(0) if len(given) > 1 else given[0]

            return answer

        def report(*_: Any, into: Callable[[str], None], **__: Any) -> Report:
            for row in ROWS:
                into(json.dumps(row))
            return Report([], False, 1, 2, [], "digest", [], 3)

        def remove(*_: Any, rows: Iterable[list[str]], digest: str, only_unchanged: bool, **__: Any) -> Removal:
            self.calls.append("remove")
            self.removed.append((list(rows), digest, only_unchanged))
            return self.removal()

        monkeypatch.setattr(verification, "inspect", lambda *_: SimpleNamespace(exact=self.exact))
        monkeypatch.setattr(write_fence, "raise_fence", answers("fence", self.raised))
        monkeypatch.setattr(write_fence, "tighten", answers("tighten", self.tightened))
        monkeypatch.setattr(surplus_rows, "report", report)
        monkeypatch.setattr(surplus_rows, "remove", remove)
        connection = cast(Connection, SimpleNamespace(rollback=lambda: None))
        phase.clean(connection, cast(Plan, None), "run", phase.Limits(), self.done, **options)


def test_the_fence_then_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database()
    database.clean(monkeypatch)
    assert database.calls == ["fence", "remove", "tighten"]
    assert database.removed == [(ROWS, "digest", False)], "those of its own report"
    assert (database.done.account.planned, database.done.account.removed) == (2, 2)
    assert (database.done.changed, database.done.fence_raised) == (True, True)
    assert database.done.statements == ["CREATE UNIQUE INDEX", "DELETE"]


def test_an_index_that_holds_needs_no_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(exact=True, removal=lambda: replace(REMOVAL, statements=[]))
    database.clean(monkeypatch)
    assert database.calls == ["remove", "tighten"]
    assert (database.done.changed, database.done.fence_raised) == (False, False)


def test_what_has_become_surplus_meanwhile_leaves_in_another_round(monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(tightened=[replace(UP, exempt=2), UP])
    database.clean(monkeypatch)
    assert database.calls == ["fence", *["remove", "tighten"] * 2]
    assert (database.done.account.planned, database.done.account.removed) == (4, 4), "the rounds add up"


def test_the_rounds_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(tightened=[replace(UP, exempt=2, warnings=["it stays"])])
    with pytest.raises(OperatorError, match="2 surplus rows in 0 groups are left"):
        database.clean(monkeypatch)
    assert database.calls == ["fence", *["remove", "tighten"] * phase.ROUNDS]
    assert database.done.account.removed == 2 * phase.ROUNDS
    assert database.done.warnings == ["it stays"] * phase.ROUNDS


def test_of_a_reviewed_file_no_other_row_leaves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "reviewed.json"
    path.write_text('{\n"digest": "reviewed",\n"rows": [\n["a", "hash"]\n]\n}\n')
    database = Database(removal=lambda: replace(REMOVAL, rows_left=1, groups_left=1))
    with pytest.raises(OperatorError, match="1 surplus rows in 1 groups are left"):
        database.clean(monkeypatch, reviewed=str(path))
    assert database.removed == [([["a", "hash"]], "reviewed", True)], "no second round"


def test_what_the_fence_cannot_exempt_leaves_first(monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(raised=[TOO_MANY, RAISED])
    database.clean(monkeypatch)
    assert database.calls == ["fence", "remove", "tighten", "fence", "remove", "tighten"]
    assert database.done.fence_raised
    database = Database(raised=[TOO_MANY])
    with pytest.raises(OperatorError, match="More rows have become surplus"):
        database.clean(monkeypatch)
    assert database.calls == ["fence", "remove", "tighten", "fence"]
    assert (database.done.account.removed, database.done.changed) == (2, True), (
        "known to who decides about the way back"
    )


@pytest.mark.parametrize("raised", [RAISED, TOO_MANY])
def test_check_mode_looks_once_and_refuses_nothing_that_is_left(
    monkeypatch: pytest.MonkeyPatch, raised: Change
) -> None:
    database = Database(raised=[raised], removal=lambda: replace(REMOVAL, rows_left=1))
    database.clean(monkeypatch, check=True)
    assert database.calls == ["fence", "remove"]


def test_each_round_accounts_for_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(removal=lambda: replace(REMOVAL, removed=1, archived=1))
    with pytest.raises(OperatorError, match="2 rows were planned, 1 are archived, and 0 are known"):
        database.clean(monkeypatch)


def test_what_a_removal_did_before_it_stopped_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> Removal:
        raise OperatorError("It stopped.", expected="no stop.", next_step="again.", removed=1, batches=1)

    database = Database(raised=[UP], removal=stop)
    with pytest.raises(OperatorError) as stopped:
        database.clean(monkeypatch)
    assert (database.done.account.planned, database.done.account.removed, database.done.changed) == (2, 1, True)
    assert stopped.value.details == {"group_count": 1, "row_count": 2, "open_total": 3, "removed": 1, "batches": 1}
