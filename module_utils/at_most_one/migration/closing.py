"""What was proven may have moved back: read again in the transaction that closes a run as deployed.

Between two connections a standby may have been promoted that lacks the last commits, or a backup restored. So nothing
that a phase has proven is taken from the controller's memory: the server, the journal, the catalog, Prisma's history,
the fence and the duplicates are asked once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import OperatorError
from ..findings import joined, observed, say
from ..indexes import verification
from ..plan import Plan
from ..postgres import catalog_snapshot, server_identity
from ..postgres.connection import Connection
from ..prisma import migration_history
from ..runs import journal
from ..verdicts import word

_PROOF = "verify"  # the phase after which the rule holds


def require_outcome(
    connection: Connection, plan: Plan | None, run_id: str, phases: Sequence[str], outcome: str
) -> list[str]:
    """Raise OperatorError unless the run may be closed with this ``outcome``; return what a person should know of.

    Only an outcome that claims a proof is asked for it again.
    """
    if outcome not in ("deployed", "unchanged"):
        return []
    if plan is not None:
        return require_still_true(connection, plan, run_id, phases)
    if outcome == "unchanged":
        return []
    raise OperatorError(
        observed("AMO-3604", "A run is to be closed as deployed without its plan."),
        expected=say("plan, to ask once more whether its rule holds."),
        next_step=say("give deploy_run the plan and the phases that have ended."),
    )


def require_still_true(connection: Connection, plan: Plan, run_id: str, phases: Sequence[str]) -> list[str]:
    """Raise OperatorError unless the run's journal has all ``phases``, and what they have proven is still so.

    ``phases``: those that the controller has seen end. The rule is asked for where its proof is among them. Returns
    what a person should know of although everything holds.
    """
    run = next(iter(journal.read(connection, run_id=run_id)), None)
    if run is None:
        return []  # closing it says so
    recorded = {phase["name"]: phase for phase in run["phases"] if phase["status"] in ("ok", "unchanged")}
    opened, now = journal.server(connection, run_id), server_identity.read(connection)
    moved = _moved(opened, now)
    faults: list[str] = [
        say("phase {name} is not in its journal", name=name) for name in phases if name not in recorded
    ]
    if moved and moved[0] == "system_identifier":
        faults.insert(0, say("this is another server than the one on which it was opened (system identifier)"))
    if _PROOF in phases:
        faults += _of_rule(connection, plan, recorded.get(_PROOF))
    if faults:
        raise OperatorError(
            observed(
                "AMO-3605",
                "Run {run_id} cannot be closed: {faults}. {moved}.",
                run_id=run_id,
                faults=joined(faults),
                moved=(_words(opened, now) if moved else say("What was recorded or proven before has moved back")),
            ),
            expected=say(
                "the server, the journal, the indexes, Prisma's history and the fence as the run has left them."
            ),
            next_step=say(
                "find out whether a standby was promoted or a backup restored, and which rows of the "
                "service it lacks; then run the same command again: it goes on from what it finds."
            ),
            run_id=run_id,
            missing=[name for name in phases if name not in recorded],
            server={"opened": opened, "now": now},
        )
    if not moved:
        return []
    return [
        say("{moved}. Everything of this run is there; compare what users wrote meanwhile.", moved=_words(opened, now))
    ]


def _of_rule(connection: Connection, plan: Plan, proof: dict[str, Any] | None) -> list[str]:
    inspection = verification.inspect(connection, plan)
    faults = inspection.faults()
    details = (proof or {}).get("details") or {}
    if details.get("adapter") != "sql":  # without Prisma the catalog alone says what is applied
        history = migration_history.read_history(connection, plan.schema)
        verdict = migration_history.judge(history, None, plan.migration, inspection.exact).verdict
        if verdict != "applied":
            faults.append(
                say("Prisma's history of {migration} is {verdict}", migration=plan.migration, verdict=word(verdict))
            )
    left = details.get("fence")  # one that could not be dropped yet stays, as verify said
    if left == "lowered" and catalog_snapshot.take(connection, plan).fence:
        faults.append(say("the write fence is up, and verify has left it lowered"))
    return faults


def _moved(opened: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs, of what the server tells both times."""
    return [name for name, value in opened.items() if None not in (value, now.get(name)) and value != now[name]]


def _words(opened: dict[str, Any], now: dict[str, Any]) -> str:
    return say(
        "A standby was promoted, or the server restored, during this run: it was opened on "
        "timeline {opened}, and timeline {now} answers",
        opened=opened.get("timeline"),
        now=now.get("timeline"),
    )
