"""The planned indexes built and in Prisma's history: choose a build strategy, then run it.

``prisma``: ``prisma migrate deploy`` builds; writers wait meanwhile. ``concurrent``: built one by one while they write,
then recorded as Prisma records it, and Prisma is asked whether it agrees. ``auto``: the first, unless its forecast is a
longer wait than is allowed. Whatever was asked for: where planned indexes are there, the rest is built concurrently,
because Prisma would stop at them, or drop and build them again while everybody waits.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from psycopg2 import sql

from ..errors import OperatorError
from ..findings import joined, observed, say
from ..indexes import build_concurrently, definitions, verification, write_pause
from ..indexes.verification import Inspection
from ..plan import Plan
from ..postgres import locks
from ..postgres.checkpoint import Checkpoint, Place
from ..postgres.connection import Connection, Hold, Login, connect
from ..postgres.locks import Watch
from ..prisma import cli, files, migration_sql
from ..prisma import migration_history as prisma
from ..prisma.migration_sql import CommentOnIndex, Statement
from ..runs import control, journal
from . import check_sql, scope

# Verdicts with which a build goes on: it builds what is missing and makes the history true.
_UNFINISHED = ("failed", "failed_with_indexes", "applied_without_indexes")
_RECORD_S = 10  # for Prisma's lock, between the last index and the record


@dataclass(frozen=True)
class Options:
    """What the operator allows: ``deadline_s`` for everything together, ``prisma_timeout_s`` for one call of Prisma."""

    strategy: str  # prisma | concurrent | auto; without Prisma: locked | concurrent | auto
    max_write_pause_ms: int
    attempts: int
    deadline_s: float
    prisma_timeout_s: float
    lock_timeout_ms: int
    statement_timeout_ms: int
    environment_path: str | None = None
    run_id: str | None = None  # the run that must hold the plan while anything is written

    @property
    def hold(self) -> Hold:
        """As functions that write take it."""
        return journal.holding(self.run_id)

    @property
    def checkpoint(self) -> Checkpoint:
        """As functions that work in steps take it."""
        return control.checkpoint(self.run_id)

    @property
    def timeouts(self) -> dict[str, Any]:
        """As :func:`connect` takes them."""
        return {"lock_timeout_ms": self.lock_timeout_ms, "statement_timeout_ms": self.statement_timeout_ms}

    @property
    def prisma(self) -> cli.Limits:
        """As ``prisma.cli`` takes them."""
        return cli.Limits(
            self.attempts, self.deadline_s, self.prisma_timeout_s, self.lock_timeout_ms, self.statement_timeout_ms
        )


@dataclass(frozen=True)
class Intent:
    """What was found and what is to be done. ``strategy`` is none when everything is there and recorded."""

    strategy: str  # none | prisma | locked | concurrent
    before: Inspection
    verdict: prisma.Verdict
    statements: tuple[str, ...] = ()
    predicted_ms: int = 0
    repaired: bool = False  # a failed attempt of which nothing is there: its row is marked rolled back first
    stalled_by: tuple[dict[str, Any], ...] = ()
    migration: files.Migration | None = None  # to be recorded
    obstacles: tuple[str, ...] = ()  # why it could not be built concurrently
    comments: tuple[CommentOnIndex, ...] = ()  # what the migration says about the indexes
    marks: bool = False  # the migration is to be recorded by its tool (tool_history)


@dataclass(frozen=True)
class Outcome:
    """What came out; the times include every wait."""

    after: Inspection
    history: str
    strategy: str  # how it ended: concurrent also where Prisma began and did not get every lock
    attempts: int  # calls of `prisma migrate deploy` that built; without Prisma: how often the lock was asked for
    seconds: float
    write_pause_ms: int
    stalled_by: tuple[dict[str, Any], ...]


def decide(login: Login, plan: Plan, release: Path, options: Options, *, check: bool = False) -> Intent:
    """Look, refuse what cannot end well, and choose. Writes nothing; ``check``: the release may not be there yet."""
    migrations = files.read_migrations(release, may_be_unbuilt=check)
    before = inspect(login, plan, options)
    with connect(login, **options.timeouts) as connection:
        verdict = prisma.judge(prisma.read_history(connection, plan.schema), migrations, plan.migration, before.exact)
        if migrations is not None:
            _require_left_alone(plan, release, verdict)
        if before.exact and not before.duplicates_left and verdict.verdict == "applied":
            return Intent("none", before, verdict)
        nothing_there = verdict.verdict == "failed" and not before.existing
        prisma.require_deployable(verdict, plan.migration, *_UNFINISHED, release=release)
        verification.refuse_building(connection, plan, before)
        script = None
        if migrations is not None:
            script = migration_sql.split(files.read_script(release, plan.migration))
        verification.require_buildable(before, plan, resume=True, duplicates_may_go=True)
        obstacles = _obstacles(plan, script, verdict)
        predicted_ms = predicted_write_pause_ms(connection, plan, before, script)
        ours = next((migration for migration in migrations or () if migration.name == plan.migration), None)
        recorded = verdict.verdict == "applied_without_indexes"
        concurrently = any(statement.index and statement.index.concurrently for statement in script or ())
        strategy = _choose(options, plan, before, predicted_ms, obstacles, recorded=recorded, concurrently=concurrently)
        if strategy == "prisma":
            prisma.require_deployable(verdict, plan.migration, *(("failed",) if nothing_there else ()))
        elif obstacles:
            by_prisma = "ansible-playbook deploy.yml -l <environment> -e migrate_strategy=prisma"
            raise _no_concurrent_build(
                plan, obstacles, say("{by_prisma}, or split the migration.", by_prisma=by_prisma)
            )
        verification.require_buildable(before, plan, resume=strategy == "concurrent", duplicates_may_go=check)
        if script is not None:
            check_sql.require_same(connection, plan, script, strict=strategy == "concurrent")
        tables = sorted({index.table for index in plan.indexes})
        comments = scope.comments(script or ())
        return Intent(
            strategy,
            before,
            verdict,
            _statements(connection, plan, before, strategy, comments, recorded=recorded),
            predicted_ms,
            nothing_there,
            tuple(locks.stalling(connection, plan.schema, tables)),
            None if recorded else ours,
            tuple(obstacles),
            comments,
        )


def wait_if_asked(login: Login, plan: Plan, options: Options) -> bool:
    """The checkpoint before the first index. Whether the run waited there: then what was decided may be out of date."""
    with connect(login, **options.timeouts, autocommit=True) as connection:
        place = Place("migrate", "indexes", 0, len(plan.indexes))
        return options.checkpoint(connection, place) > 0


def carry_out(login: Login, plan: Plan, release: Path, options: Options, intent: Intent) -> Outcome:
    """Do what was decided. Raises OperatorError unless exactly the planned indexes are there and recorded then."""
    started = time.monotonic()
    with connect(login, **options.timeouts, autocommit=True) as observer:
        watch = Watch(observer, plan.schema, sorted({index.table for index in plan.indexes}))
        way = _by_prisma if intent.strategy == "prisma" else _concurrently
        strategy, attempts, write_pause_ms, stalled_by = way(login, plan, release, options, intent, watch)
    after = inspect(login, plan, options)
    verification.require_exact(after, plan)
    return Outcome(
        after,
        "applied",
        strategy,
        attempts,
        round(time.monotonic() - started, 1),
        max(watch.write_pause_ms, write_pause_ms),
        stalled_by,
    )


def inspect(login: Login, plan: Plan, options: Options) -> Inspection:
    """The verdicts, read on a connection of its own."""
    with connect(login, **options.timeouts) as connection:
        inspection = verification.inspect(connection, plan)
        connection.rollback()
    return inspection


Way = tuple[str, int, int, tuple[dict[str, Any], ...]]  # as in Outcome


def _by_prisma(login: Login, plan: Plan, release: Path, options: Options, intent: Intent, watch: Watch) -> Way:
    def catalog(connection: Connection) -> prisma.Built:
        inspection = verification.inspect(connection, plan)
        return prisma.Built(inspection.exact, inspection.existing, inspection.duplicates_left)

    if intent.repaired:
        with connect(login, **options.timeouts) as connection:
            options.hold(connection)
            prisma.mark_rolled_back(connection, plan.schema, plan.migration, intent.before.existing)
    started = time.monotonic()
    try:
        deployed = cli.deploy(
            login,
            plan,
            release,
            options.prisma,
            catalog=catalog,
            watch=watch,
            environment_path=options.environment_path,
            hold=options.hold,
        )
    except cli.PartlyBuilt as stop:
        if intent.obstacles:
            raise
        left_s = options.deadline_s - (time.monotonic() - started)
        return _go_on(login, plan, release, replace(options, deadline_s=max(1.0, left_s)), stop, watch)
    return "prisma", deployed.attempts, 0, intent.stalled_by


def _go_on(login: Login, plan: Plan, release: Path, options: Options, stop: cli.PartlyBuilt, watch: Watch) -> Way:
    """Build concurrently what Prisma did not get the lock for: nobody waits for that while it waits itself."""
    intent = decide(login, plan, release, options)
    _, _, write_pause_ms, stalled_by = _concurrently(login, plan, release, options, intent, watch)
    return "concurrent", stop.attempts, write_pause_ms, stalled_by or stop.holders


def _concurrently(login: Login, plan: Plan, release: Path, options: Options, intent: Intent, watch: Watch) -> Way:
    started, started_at = time.monotonic(), _server_time(watch.connection)
    cli.wait_for_migration_lock(watch.connection, started + options.deadline_s)
    left_s = max(1.0, options.deadline_s - (time.monotonic() - started))
    limits = build_concurrently.Limits(left_s)
    built = build_concurrently.build(
        login, plan, intent.before, limits, hold=options.hold, checkpoint=options.checkpoint
    )
    verification.require_exact(inspect(login, plan, options), plan)
    # Prisma's lock only now: a deploy that waits for it has a snapshot, and the build would have waited for that one.
    cli.wait_for_migration_lock(watch.connection, time.monotonic() + _RECORD_S)
    with connect(login, **options.timeouts) as connection:
        options.hold(connection)
        with connection.cursor() as cursor:
            for comment in intent.comments:
                cursor.execute(definitions.comment_statement(comment.name, plan.schema, comment.text))
        if intent.migration is not None:
            prisma.record_applied(connection, plan.schema, intent.migration, started_at)
    cli.confirm(login, plan, release, options.prisma, watch=watch, environment_path=options.environment_path)
    return "concurrent", 0, built.write_pause_ms, built.stalled_by


def against(plan: Plan, release: Path, verdict: prisma.Verdict) -> list[dict[str, Any]]:
    """The statements about planned indexes in the release's other migrations that are yet to be applied."""
    return [
        {"number": number, "migration": other, "name": name}
        for other in verdict.pending
        if other != plan.migration
        for number, name in scope.against(migration_sql.split(files.read_script(release, other)), plan)
    ]


def _require_left_alone(plan: Plan, release: Path, verdict: prisma.Verdict) -> None:
    found = against(plan, release, verdict)
    if found:
        raise OperatorError(
            observed(
                "AMO-3626",
                "Another migration of the release would change what plan {plan_id} builds: {found}.",
                plan_id=plan.id,
                found=joined(say("statement {number} of {migration} is about {name}", **one) for one in found),
            ),
            expected=say(
                "no statement that drops, builds or renames a planned index, or drops what it is on, in a migration"
                " that is yet to be applied. Nothing was touched."
            ),
            next_step=say(
                "take the statement out of that migration and commit it; docs/prisma.md says how schema.prisma keeps"
                " the index, so that `prisma migrate dev` does not write it again. If the rule itself shall go,"
                " ansible-playbook rollback.yml -l <environment> is the way."
            ),
            cause="migration_differs",
        )


def _server_time(connection: Connection) -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        moment: datetime = (cursor.fetchone() or ())[0]
        return moment


def _obstacles(plan: Plan, script: tuple[Statement, ...] | None, verdict: prisma.Verdict) -> list[str]:
    """Why the migration may not be recorded instead of run; a release that is not there yet says nothing."""
    obstacles = scope.beyond(script, plan) if script is not None else []
    others = [name for name in verdict.pending if name != plan.migration]
    if others and script is not None:
        obstacles.append(say("`prisma migrate deploy` would apply {others} as well", others=", ".join(others)))
    return obstacles


def predicted_write_pause_ms(
    connection: Connection, plan: Plan, before: Inspection, script: tuple[Statement, ...] | None
) -> int:
    """How long writers would wait for a build in one transaction, in the order of the script."""
    missing = {verdict.name for verdict in before.verdicts if verdict.verdict == "missing"}
    order = [statement.index.name for statement in script or () if statement.index]
    wanted = sorted(
        (index for index in plan.indexes if index.name in missing),
        key=lambda index: order.index(index.name) if index.name in order else len(order),
    )
    return write_pause.write_pause(connection, plan, wanted).write_pause_ms if wanted else 0


def _choose(
    options: Options,
    plan: Plan,
    before: Inspection,
    predicted_ms: int,
    obstacles: list[str],
    *,
    recorded: bool,
    concurrently: bool,
) -> str:
    # Of what exists, Prisma would stop at the first, or drop it and build it again. What is recorded it does not build.
    if before.existing or recorded:
        if obstacles and options.strategy != "concurrent":
            seen = say(
                "{existing} exist already, and Prisma would begin from the first statement. ",
                existing=", ".join(before.existing),
            )
            raise _no_concurrent_build(
                plan,
                obstacles,
                say("ansible-playbook rollback.yml -l <environment> takes back what is built, then deploy again."),
                seen=say("Prisma's history says applied, so Prisma would build nothing. ") if recorded else seen,
            )
        return "concurrent"
    if options.strategy != "auto":
        return options.strategy
    # CONCURRENTLY has to be a script's only statement (25001), and the lock_timeout that Prisma gets cuts it short.
    if predicted_ms <= options.max_write_pause_ms and (obstacles or not concurrently):
        return "prisma"
    if obstacles:
        raise _no_concurrent_build(
            plan,
            obstacles,
            say(
                "raise migrate_max_write_pause_ms above {predicted_ms} if writers may wait that long, or "
                "split the migration: the indexes in one of their own.",
                predicted_ms=predicted_ms,
            ),
            seen=say(
                "Writers would wait about {predicted_ms} ms for Prisma's build, {max_write_pause_ms} ms are allowed. ",
                predicted_ms=predicted_ms,
                max_write_pause_ms=options.max_write_pause_ms,
            ),
            write_pause_predicted_ms=predicted_ms,
        )
    return "concurrent"


def _no_concurrent_build(
    plan: Plan, obstacles: list[str], next_step: str, *, seen: str = "", **details: Any
) -> OperatorError:
    return OperatorError(
        observed(
            "AMO-3601",
            "{seen}Migration {migration} cannot be built concurrently: {obstacles}.",
            seen=seen,
            migration=plan.migration,
            obstacles=joined(obstacles),
        ),
        expected=say(
            "a migration that does nothing but build the planned indexes, and no other one pending: "
            "only then may it be recorded as applied instead of being run."
        ),
        next_step=next_step,
        cause="migration_does_more",
        statements=obstacles,
        **details,
    )


def _statements(
    connection: Connection,
    plan: Plan,
    before: Inspection,
    strategy: str,
    comments: tuple[CommentOnIndex, ...],
    *,
    recorded: bool,
) -> tuple[str, ...]:
    """What will be run. Prisma runs its own wording of it."""
    concurrently = strategy == "concurrent"
    statements = create_statements(
        connection, plan, before, comments if concurrently else (), concurrently=concurrently
    )
    if concurrently and not recorded:
        statements.append(prisma.record_statement(plan.schema))
    return tuple(statement.as_string(connection) for statement in statements)


def create_statements(
    connection: Connection,
    plan: Plan,
    before: Inspection,
    comments: tuple[CommentOnIndex, ...],
    *,
    concurrently: bool,
) -> list[sql.Composed]:
    """What builds each planned index that is not there; concurrently also after what was abandoned is dropped."""
    states = {verdict.name: verdict.verdict for verdict in before.verdicts}
    statements = []
    for index in plan.indexes:
        if states[index.name] == "present":
            continue
        if concurrently:
            abandoned = states[index.name] == "invalid"
            steps = build_concurrently.build_steps(connection, plan, index, abandoned=abandoned)
            statements += [step.statement for step in steps]
        else:
            statements.append(definitions.create_statement(index, plan.schema))
    return statements + [definitions.comment_statement(one.name, plan.schema, one.text) for one in comments]
