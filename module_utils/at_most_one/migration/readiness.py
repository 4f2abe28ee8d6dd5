"""Whether the plan's migration can be built from a release: what Prisma's history says, and by which strategy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import OperatorError
from ..findings import Finding, observed, say
from ..indexes import verification
from ..plan import Plan
from ..postgres.connection import Login, connect
from ..prisma import migration_history
from ..prisma.files import read_migrations
from ..verdicts import word
from . import build, by_sql
from .tool_history import ToolHistory


@dataclass(frozen=True)
class Readiness:
    """``indexes_exact`` is None where the planned tables may not even be there; an empty ``refusal``: it can go on."""

    verdict: migration_history.Verdict
    repair: str
    indexes_exact: bool | None
    duplicates_left: int | None = None
    strategy: str = "none"
    refusal: str = ""
    findings: tuple[Finding, ...] = ()  # of the refusal
    against: tuple[dict[str, Any], ...] = ()  # as build.against returns it

    @property
    def needs_a_person(self) -> bool:
        """Whether no phase of a deployment repairs what the history says."""
        return self.verdict.verdict in migration_history.NEEDS_A_PERSON


def read(
    login: Login,
    plan: Plan,
    release: Path | None,
    options: build.Options | None = None,
    *,
    named: str | Path | None = None,
    check: bool = False,
    **timeouts: Any,
) -> Readiness:
    """Compare Prisma's history with the release's migrations and with the catalog; without a release, with that alone.

    With ``options`` also whether the migration can be built with their strategy; duplicates may still be there.
    ``named``: the directory that a repair is to be run in, where that is another one than ``release``. ``check``: the
    release may not be there yet. Writes nothing.
    """
    known = read_migrations(release, may_be_unbuilt=check) if release else None
    with connect(login, **timeouts) as connection:
        history = migration_history.read_history(connection, plan.schema)
        exact = duplicates = None
        verdict = migration_history.judge(history, known, plan.migration, exact)
        if verdict.verdict not in migration_history.BLOCKED_BEFORE:  # there, the planned tables may not even exist yet
            inspection = verification.inspect(connection, plan)
            exact, duplicates = inspection.exact, inspection.duplicates_left
            verdict = migration_history.judge(history, known, plan.migration, exact)
        connection.rollback()
    found = Readiness(verdict, migration_history.repair_in(verdict, named or release), exact, duplicates)
    if options is None:
        return found if release is None else replace(found, against=tuple(build.against(plan, release, verdict)))
    if found.needs_a_person:
        refused = Finding(
            "",
            observed(
                "AMO-3609",
                "Prisma's history of {migration} is {verdict}{failed}.",
                migration=plan.migration,
                verdict=word(verdict.verdict),
                failed=f": {', '.join(verdict.failed)}" if verdict.failed else "",
            ),
            say("a history that the migrate phase can go on from. Nothing was touched."),
            found.repair,
        )
        return replace(found, refusal=str(refused), findings=(refused,))
    if release is None:
        return found
    try:
        return replace(found, strategy=build.decide(login, plan, release, options, check=True).strategy)
    except OperatorError as stop:
        return replace(found, refusal=str(stop), findings=stop.findings)


def read_by_sql(
    login: Login, plan: Plan, text: str, options: build.Options, history: ToolHistory | None = None
) -> Readiness:
    """Whether the planned indexes can be built without Prisma, from ``text`` (see :func:`.by_sql.decide`) or the plan.

    With ``history`` also what that says, and whether its tool asks this database. Duplicates may still be there. Writes
    nothing.
    """
    inspection = build.inspect(login, plan, options)
    verdict = by_sql.history_of(plan, exact=inspection.exact and history is None)  # until the tool has said it
    found = Readiness(verdict, verdict.repair, inspection.exact, inspection.duplicates_left)
    try:
        intent = by_sql.decide(login, plan, text, options, history=history, check=True)
        if history is not None:
            history.require_own_database()
        return replace(found, verdict=intent.verdict, repair=intent.verdict.repair, strategy=intent.strategy)
    except OperatorError as stop:
        return replace(found, refusal=str(stop), findings=stop.findings)
