"""The clean-up: the fence goes up, then the surplus rows leave in rounds, each row archived first.

Rows can become surplus under the fence while it exempts their group's others; so it is looked for them again. The
fence's list of exempt rows has to fit on a page of the catalog. What cannot be listed leaves without a fence; few rows
can have become surplus by then, and those the fence exempts.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from ..duplicates import surplus_rows
from ..duplicates.batches import Pace
from ..duplicates.plan_file import RowsFile
from ..duplicates.surplus_rows import Removal
from ..errors import OperatorError
from ..fence import exempting_index, write_fence
from ..fence.write_fence import Change
from ..indexes import verification
from ..plan import Plan
from ..postgres.checkpoint import Checkpoint, unasked
from ..postgres.connection import Connection, Hold, unheld
from ..runs import journal
from . import account
from .account import Account

ROUNDS = 5
COUNTED = ("group_count", "row_count", "open_total")
PREVIEWED = ("removed", "groups_left", "rows_left", "kept_meanwhile", "gone_meanwhile", "unarchived")


@dataclass(frozen=True)
class Limits:
    """What may leave at most, how fast, and how long writers may wait for the fence. None is the plan's."""

    max_rows: int | None = None
    expected_groups: int | None = None
    expected_rows: int | None = None
    pace: Pace = field(default_factory=Pace)
    lock_attempts: int = 10
    max_write_pause_ms: int = 500
    deadline_s: float = 300

    @property
    def of_rows(self) -> dict[str, Any]:
        """As ``surplus_rows.remove`` takes them."""
        names = ("max_rows", "expected_groups", "expected_rows", "pace")
        return {name: getattr(self, name) for name in names}


@dataclass
class Progress:
    """What the clean-up has done so far, also where it stops; in check mode, what it would do."""

    account: Account
    fence: Change | None = None
    changed: bool = False
    statements: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def fence_raised(self) -> bool:
        """Whether it was raised here, and was not up before."""
        return self.fence is not None and bool(self.fence.statements)


def earlier(connection: Connection, run_id: str) -> Account | None:
    """What the clean-up of this run has come to before, by the journal."""
    runs = journal.read(connection, run_id=run_id)
    connection.rollback()
    return Account.kept(runs[0]["phases"]) if runs else None


def preview(
    connection: Connection, plan: Plan, run_id: str, limits: Limits, written: str, reviewed: str | None
) -> tuple[dict[str, Any], OperatorError | None]:
    """What removing the rows of the ``reviewed`` file, or of the one ``written`` just now, would come to; and why it
    would be refused. Nothing is written."""
    found: dict[str, Any] = {}
    rows = RowsFile(reviewed or written)
    turn = _Turn(connection, plan, run_id, limits, Progress(Account()), reviewed, True, unheld)
    try:
        removal = asdict(turn.removal(rows.rows(), rows.digest()))
        found = {name: removal[name] for name in PREVIEWED}
        if reviewed is not None:
            account.refuse_uncovered(found, reviewed)
    except OperatorError as stop:
        return found, stop
    return found, None


def clean(
    connection: Connection,
    plan: Plan,
    run_id: str,
    limits: Limits,
    done: Progress,
    *,
    reviewed: str | None = None,
    check: bool = False,
    hold: Hold = unheld,
    checkpoint: Checkpoint = unasked,
) -> None:
    """Raise the fence, unless the index holds, and remove the surplus rows: those of the ``reviewed`` file, or all.

    Raises OperatorError when one is left, or a planned one is neither archived nor known to be changed by others.
    """
    turn = _Turn(connection, plan, run_id, limits, done, reviewed, check, hold, checkpoint)
    exact = verification.inspect(connection, plan).exact
    connection.rollback()
    if not exact and turn.raise_fence().surplus_first and not check:
        turn.remove()
        if turn.raise_fence().surplus_first:
            raise account.too_many_for_the_fence(exempting_index.MOST)
    rows, groups = 0, 0
    for _ in range(ROUNDS):
        rows, groups = turn.remove()
        if not rows or check or reviewed:
            break
    if not check:
        account.refuse_left(rows, groups)


@dataclass(frozen=True)
class _Turn:
    """One clean-up; what it does enters ``done``."""

    connection: Connection
    plan: Plan
    run_id: str
    limits: Limits
    done: Progress
    reviewed: str | None
    check: bool
    hold: Hold
    checkpoint: Checkpoint = unasked

    def raise_fence(self) -> Change:
        limits = self.limits
        change = write_fence.raise_fence(
            *(self.connection, self.plan),
            lock_attempts=limits.lock_attempts,
            max_write_pause_ms=limits.max_write_pause_ms,
            deadline_s=limits.deadline_s,
            check=self.check,
            hold=self.hold,
        )
        self.done.fence = change
        self._note(change.statements, change.warnings)
        return change

    def remove(self) -> tuple[int, int]:
        """Report the surplus rows, now that none can be added, and remove them. How many are left, in how many groups.

        They wait in a file without a name: nothing of it is left, however this process ends.
        """
        before = self.done.account
        with tempfile.TemporaryFile("w+", encoding="utf-8") as waiting:
            found = surplus_rows.report(
                self.connection, self.plan, limit=0, into=lambda line: waiting.writelines((line, "\n"))
            )
            known: dict[str, Any] = {name: getattr(found, name) for name in COUNTED}
            waiting.seek(0)
            try:
                if self.reviewed is None:
                    removal = self.removal(map(json.loads, waiting), found.digest)
                else:
                    file = RowsFile(self.reviewed)
                    removal = self.removal(file.rows(), file.digest())
            except OperatorError as stop:
                self.done.account = before.plus({**known, **stop.details})
                self.done.changed |= stop.details.get("removed", 0) > 0
                stop.details = {**known, **stop.details}
                raise
        known.update(asdict(removal))
        self.done.account = before.plus(known)
        self._note(removal.statements, removal.warnings)
        if self.check:
            return removal.rows_left, removal.groups_left
        # What the fence exempts and has not left is to be in it from now on.
        tightened = write_fence.tighten(self.connection, self.plan, hold=self.hold)
        self.done.warnings += tightened.warnings
        Account().plus(known).require_complete()
        return max(removal.rows_left, tightened.exempt), removal.groups_left

    def removal(self, rows: Iterable[list[str]], digest: str) -> Removal:
        """Remove these rows; of a reviewed file, those whose content is still the same."""
        return surplus_rows.remove(
            *(self.connection, self.plan),
            rows=rows,
            digest=digest,
            run_id=self.run_id,
            **self.limits.of_rows,
            only_unchanged=self.reviewed is not None,
            check=self.check,
            hold=self.hold,
            checkpoint=self.checkpoint,
        )

    def _note(self, statements: list[str], warnings: list[str]) -> None:
        self.done.changed |= bool(statements)
        self.done.statements += statements
        self.done.warnings += warnings
