"""Indexes by definition: one verdict for each planned index and for each stranger of its family; and taking them away.

How a definition is written and rendered is :mod:`.definitions`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import psycopg2
import psycopg2.errors

from ..errors import OperatorError
from ..findings import Phrase, joined, observed, say
from ..plan import Plan
from ..postgres import locks
from ..postgres.connection import Connection, Hold, Login, connect, unheld
from ..postgres.server_errors import first_line
from ..verdicts import word
from . import definitions, on_partitions
from .dropping import drop_concurrently

# What makes two indexes the same; `name` and `schema` are how they were found. The last three are the index's health:
# an index that differs in nothing else is the right one, but unfinished.
_DEFINITION = (
    *("table", "method", "columns", "opclass", "collation", "order"),
    *("include", "predicate", "unique", "nulls_not_distinct", "deferrable"),
)
_HEALTH = ("valid", "ready", "live")


@dataclass(frozen=True)
class Difference:
    """One part of a definition in which the catalog departs from the plan."""

    part: str
    expected: str
    seen: str


@dataclass(frozen=True)
class Building:
    """A build of this index that is running now (pg_stat_progress_create_index); ``percent`` is of the phase."""

    pid: int
    phase: str
    percent: int | None


@dataclass(frozen=True)
class Verdict:
    """What the catalog says of one index: present, missing, different, invalid or unexpected.

    ``invalid`` has the planned definition but is not valid, ready and live: abandoned, or being built now when
    ``building`` is set. ``different`` may be invalid as well; its parts say so.
    """

    name: str
    verdict: str
    parts: tuple[Difference, ...] = ()
    valid: bool | None = None
    ready: bool | None = None
    live: bool | None = None
    building: Building | None = None
    definition: str | None = None

    def fault(self) -> str | None:
        """The fault as a phrase for a person; ``None`` when there is none."""
        if self.verdict == "present":
            return None
        if self.verdict == "invalid" and self.building:
            return say(
                "{name} is still being built (pid {pid}, {phase})",
                name=self.name,
                pid=self.building.pid,
                phase=self.building.phase,
            )
        if not self.parts:
            return say("{name} is {verdict}", name=self.name, verdict=word(self.verdict))
        parts = joined(
            say(
                "{part}: expected {expected}, seen {seen}",
                part=word(one.part),
                expected=one.expected,
                seen=one.seen,
            )
            for one in self.parts
        )
        return say("{name} is {verdict} ({parts})", name=self.name, verdict=word(self.verdict), parts=parts)


@dataclass(frozen=True)
class Inspection:
    """All verdicts, and how many groups of rows break the plan's rule right now."""

    verdicts: tuple[Verdict, ...]
    duplicates_left: int

    @property
    def exact(self) -> bool:
        """Exactly the planned indexes, each one valid, ready and live, and no other of the family."""
        return all(verdict.verdict == "present" for verdict in self.verdicts)

    @property
    def existing(self) -> tuple[str, ...]:
        """The planned names that are taken in the plan's schema, whatever their state."""
        return tuple(v.name for v in self.verdicts if v.verdict not in ("missing", "unexpected"))

    def faults(self) -> list[str]:
        """Every reason why the rule cannot be called deployed."""
        faults = [fault for verdict in self.verdicts if (fault := verdict.fault())]
        if self.duplicates_left:
            faults.append(
                say(
                    "{duplicates_left} duplicate group(s) are left inside the rule",
                    duplicates_left=self.duplicates_left,
                )
            )
        return faults

    def summary(self) -> Phrase:
        """One line for a person."""
        planned = [v for v in self.verdicts if v.verdict != "unexpected"]
        present = sum(v.verdict == "present" for v in planned)
        return say(
            "{present} of {planned} planned indexes present and valid, {unexpected} unexpected, "
            "{duplicates_left} duplicate groups",
            present=present,
            planned=len(planned),
            unexpected=len(self.verdicts) - len(planned),
            duplicates_left=self.duplicates_left,
        )


def inspect(connection: Connection, plan: Plan) -> Inspection:
    """Compare the catalog with the plan. Writes nothing: the shadow tables live inside a savepoint that is rolled back.

    The connection must be inside a transaction (not autocommit). Raises OperatorError when the plan's indexes cannot be
    built on the plan's tables at all, or when the role may not read them.
    """
    expected = definitions.expected(connection, plan)
    seen = definitions.settle(connection, plan, expected, definitions.seen(connection, plan))
    verdicts = [judge(index.name, expected[index.name], seen.get(index.name)) for index in plan.indexes]
    known = {*expected, *plan.family.neighbours}
    verdicts += [_found(name, "unexpected", (), facts) for name, facts in seen.items() if name not in known]
    return Inspection(tuple(verdicts), definitions.violations(connection, plan.schema, plan.rule_index))


def look(login: Login, plan: Plan) -> tuple[list[str] | OperatorError, int | None]:
    """What is wrong with the indexes, or the error that hid them; and the number of duplicate groups, where known."""
    try:
        with connect(login) as connection:
            found = inspect(connection, plan)
            connection.rollback()
    except OperatorError as stop:
        return stop, None
    except psycopg2.Error as failure:
        return OperatorError(
            observed(
                "AMO-3508", "PostgreSQL refused a look at the indexes: {first_line}.", first_line=first_line(failure)
            ),
            expected=say("an answer within the timeouts."),
            next_step=say("look at pg_stat_activity and at the server's log of this moment."),
        ), None
    return [fault for one in found.verdicts if (fault := one.fault())], found.duplicates_left


def require_exact(inspection: Inspection, plan: Plan) -> None:
    """Raise an OperatorError that names each fault, unless the plan's indexes are exactly there and no duplicate is."""
    faults = inspection.faults()
    if faults:
        raise OperatorError(
            observed(
                "AMO-3509",
                "Schema {schema} does not hold what plan {plan_id} asks for: {faults}.",
                schema=plan.schema,
                plan_id=plan.id,
                faults=joined(faults),
            ),
            expected=say(
                "exactly the {count} planned indexes, all valid and ready, no other of their family, and no duplicate.",
                count=len(plan.indexes),
            ),
            next_step=_repair(inspection, plan),
            indexes=[asdict(verdict) for verdict in inspection.verdicts],
            duplicates_left=inspection.duplicates_left,
        )


def require_buildable(
    inspection: Inspection, plan: Plan, *, resume: bool = False, duplicates_may_go: bool = False
) -> None:
    """Raise an OperatorError when the build is bound to fail: a planned name is taken, or duplicates are left.

    ``resume`` is for a build that goes on from planned indexes that are there, or were abandoned. ``duplicates_may_go``
    is for check mode, where the clean-up before has removed nothing either.
    """
    harmless = ("missing", "present", "invalid") if resume else ("missing",)
    obstacles = [v for v in inspection.verdicts if v.verdict not in harmless]
    if obstacles:
        phrases = [verdict.fault() or say("{verdict} is there already", verdict=verdict.name) for verdict in obstacles]
        raise OperatorError(
            observed(
                "AMO-3510",
                "The indexes of plan {plan_id} cannot be built: {obstacles}.",
                plan_id=plan.id,
                obstacles=joined(phrases),
            ),
            expected=say("none of the planned indexes and no other of their family before the migration is applied."),
            next_step=say(
                "ansible-playbook rollback.yml -l <environment> takes back what a deployment built; by "
                "hand it is {drops} Whoever made the others knows about those.",
                drops=_drops(inspection, plan),
            ),
            cause="obstacle",
            indexes=[asdict(verdict) for verdict in inspection.verdicts],
        )
    if inspection.duplicates_left and not duplicates_may_go:
        raise OperatorError(
            observed(
                "AMO-3511",
                "{duplicates_left} duplicate group(s) are left inside the rule of plan {plan_id}.",
                duplicates_left=inspection.duplicates_left,
                plan_id=plan.id,
            ),
            expected=say("no duplicate before the unique index is built: it would be refused."),
            next_step=say("run the cleanup phase again; no migration was started."),
            cause="duplicates",
            duplicates_left=inspection.duplicates_left,
        )


def require_absent(inspection: Inspection, plan: Plan) -> None:
    """Raise an OperatorError when a planned index is still there, in whatever state."""
    if inspection.existing:
        raise OperatorError(
            observed(
                "AMO-3512",
                "Still in schema {schema}: {existing}.",
                schema=plan.schema,
                existing=", ".join(inspection.existing),
            ),
            expected=say("none of the planned indexes after they were dropped."),
            next_step=say("look for somebody who builds them again at this moment, then run again."),
            existing=list(inspection.existing),
        )


def refuse_building(connection: Connection, plan: Plan, inspection: Inspection) -> None:
    """Raise OperatorError when somebody is building, or dropping, a planned index at this moment.

    Seen in pg_stat_progress_create_index; where its columns are hidden from this role, by the lock that such a session
    keeps on the table for its whole duration, and that nothing but VACUUM and ANALYZE takes as well.
    """
    for verdict in inspection.verdicts:
        if verdict.verdict == "unexpected" or verdict.valid is not False:
            continue
        table = next(index.table for index in plan.indexes if index.name == verdict.name)
        at_work = [
            holder
            for holder in locks.holders(connection, plan.schema, [table])
            if "ShareUpdateExclusiveLock" in holder["modes"]
            and not holder["query"].lower().startswith(("autovacuum:", "vacuum", "analyze"))
        ]
        if not at_work and not verdict.building:
            continue
        pid = verdict.building.pid if verdict.building else at_work[0]["pid"]
        phase = verdict.building.phase if verdict.building else say("its phase is not visible to this role")
        percent = verdict.building.percent if verdict.building else None
        who = next(
            (
                say(" by {user} ({application})", user=h["user"], application=h["application"] or h["query"])
                for h in at_work
                if h["pid"] == pid
            ),
            "",
        )
        raise OperatorError(
            observed(
                "AMO-3513",
                "{index} is being built at this moment{who}: pid {pid}, {phase}{percent}.",
                index=verdict.name,
                who=who,
                pid=pid,
                phase=phase,
                percent="" if percent is None else f", {percent} %",
            ),
            expected=say("nobody else to build or to drop a planned index."),
            next_step=say(
                "wait until that has ended, then run again; nothing was touched. A build that nobody "
                "wants any more ends with SELECT pg_cancel_backend({pid}); its INVALID index is repaired "
                "by the next run.",
                pid=pid,
            ),
            cause="building",
            index=verdict.name,
            pid=pid,
            phase=phase,
            percent=percent,
            holders=at_work,
        )


def drop(
    connection: Connection, plan: Plan, inspection: Inspection, *, check: bool = False, hold: Hold = unheld
) -> list[str]:
    """Drop every planned index that exists, one by one, CONCURRENTLY; return the statements run (or to be run: check).

    First go those that a build which was cut short has left on partitions: no inspection shows them, and they would go
    on refusing rows. The connection must be in autocommit with lock_timeout 0: a lock_timeout would leave an INVALID
    index whenever a transaction on the table outlives it. Its statement_timeout is the deadline of each drop. Raises
    OperatorError before the first drop when a planned name belongs to something else than an index of the planned
    table.
    """
    refuse_foreign(inspection, plan)
    refuse_building(connection, plan, inspection)
    statements: list[str] = []
    for index in plan.indexes:
        name, table = index.name, index.table
        left_over = on_partitions.left_over(connection, name, table, plan.schema)
        is_there = name in inspection.existing
        whole = [on_partitions.drop_step(connection, name, table, plan.schema)] if is_there else []
        statements += [step.statement.as_string(connection) for step in (*left_over, *whole)]
        if check or not (left_over or whole):
            continue
        hold(connection)  # a drop CONCURRENTLY cannot be in the transaction that holds the run
        try:
            with connection.cursor() as cursor:
                for step in left_over:
                    step.run(cursor)
                if is_there:
                    drop_concurrently(cursor, name, plan.schema)
        except (psycopg2.errors.QueryCanceled, psycopg2.errors.LockNotAvailable) as slow:
            holders = locks.holders(connection, plan.schema, [table])
            raise OperatorError(
                observed(
                    "AMO-3515",
                    "Dropping {schema}.{name} on {table} did not end within its deadline; {sessions}.",
                    schema=plan.schema,
                    name=name,
                    table=table,
                    sessions=locks.describe(holders),
                ),
                expected=say("every transaction that uses the table to end within the deadline."),
                next_step=say(
                    "end or wait for those sessions, then run again: an index left INVALID here is dropped then."
                ),
                index=name,
                holders=holders,
            ) from slow
        hold(connection)
    return statements


def refuse_foreign(inspection: Inspection, plan: Plan) -> None:
    """Raise OperatorError when a planned name is taken by another table's index or by no index at all."""
    foreign = [v for v in inspection.verdicts if any(part.part in ("table", "kind") for part in v.parts)]
    if foreign:
        faults = (verdict.fault() for verdict in foreign)
        raise OperatorError(
            observed("AMO-3516", "Not the plan's to drop: {foreign}.", foreign=joined(filter(None, faults))),
            expected=say("each planned name to be free or to belong to an index of the planned table."),
            next_step=say("rename or drop it by hand once you know whose it is; nothing was dropped."),
            indexes=[v.name for v in foreign],
        )


def judge(name: str, expected: dict[str, Any], seen: dict[str, Any] | None) -> Verdict:
    """The verdict on one index, from the facts that :mod:`.definitions` reads of the expected and of the seen one."""
    if seen is None:
        return Verdict(name, "missing")
    if seen["kind"] != "index":
        return Verdict(name, "different", (Difference("kind", word("index"), word(seen["kind"])),))
    parts = [part for part in (*_DEFINITION, *_HEALTH) if expected[part] != seen[part]]
    if "columns" in parts:  # other columns bring other operator classes, collations and orders: say it once
        parts = [part for part in parts if part not in ("opclass", "collation", "order")]
    remarks = seen.get("remarks", {})
    differences = tuple(
        Difference(part, _text(expected[part]), _remarked(_text(seen[part]), remarks.get(part))) for part in parts
    )
    if not parts:
        return _found(name, "present", (), seen)
    return _found(name, "invalid" if set(parts) <= set(_HEALTH) else "different", differences, seen)


def _found(name: str, verdict: str, parts: tuple[Difference, ...], facts: dict[str, Any]) -> Verdict:
    building = (
        Building(facts["building_pid"], facts["building_phase"], facts["building_percent"])
        if facts["building_pid"]
        else None
    )
    return Verdict(name, verdict, parts, facts["valid"], facts["ready"], facts["live"], building, facts["definition"])


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return word("yes" if value else "no")
    text = ", ".join(value) if isinstance(value, list) else str(value or "")
    return text or word("none")


def _remarked(text: str, remark: str | None) -> str:
    return say("{seen} ({remark})", seen=text, remark=remark) if remark else text


def _drops(inspection: Inspection, plan: Plan) -> str:
    """The statements with which a person drops what is taken of the planned names; plainly on a partitioned table."""
    definition = {verdict.name: verdict.definition or "" for verdict in inspection.verdicts}
    how = {name: "" if " ON ONLY " in definition[name] else " CONCURRENTLY" for name in inspection.existing}
    return "; ".join(f"DROP INDEX{word} {quoted(plan.schema, name)}" for name, word in how.items()) + ";"


def quoted(*names: str) -> str:
    """A qualified name as a person may paste it into psql; statements of our own go through psycopg2.sql."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def _repair(inspection: Inspection, plan: Plan) -> str:
    """The next step that fits the worst fault."""
    verdicts = {verdict.verdict for verdict in inspection.verdicts}
    if any(verdict.building for verdict in inspection.verdicts):
        return say("wait until the build has ended, then verify again; drop nothing meanwhile.")
    if "different" in verdicts or "unexpected" in verdicts:
        return say(
            "find out who made the other index; drop it with DROP INDEX CONCURRENTLY, or correct the plan's indexes or "
            "its family.neighbours."
        )
    if "invalid" in verdicts:
        return say(
            "the migrate phase repairs it with migrate_strategy=concurrent; by hand: {drops}",
            drops=_drops(inspection, plan),
        )
    if "missing" in verdicts:
        return say("run the migrate phase; prisma_history_info tells whether Prisma would apply the migration again.")
    return say("run the cleanup phase again.")
