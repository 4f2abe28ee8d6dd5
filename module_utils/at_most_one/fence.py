"""The write fence: from before the clean-up until the unique index is valid, nobody can write a new duplicate.

Two row triggers, one for INSERT and one for UPDATE, call one function. A row that enters the rule's predicate, or
changes its key inside it, first takes a transaction advisory lock on its key and then looks for another row with that
key. Of two writers the second waits for the first one's commit, and its look-up, a statement with a snapshot of its own
under READ COMMITTED, sees it. Refused rows get the error the unique index will give, so the application meets today
what it will meet for ever. Rows that are duplicates already can be updated and closed.

They are AFTER triggers: only then is the row final, with what other triggers changed and with its generated columns.
A REPEATABLE READ writer's old snapshot can still miss a row: the index remains the judge.

One statement fares worse than it will under the index: INSERT ... ON CONFLICT DO NOTHING without a target. The index
lets PostgreSQL skip the row in silence; a trigger cannot know what the statement said, and skipping rows for all would
lose those of plain INSERTs in silence. So it gets the 23505, for as long as the fence stands. (A target that names the
rule, as in ON CONFLICT (key) WHERE ..., is refused before the index exists anyway: 42P10.)
"""

from __future__ import annotations

import hashlib
import random
import time
from dataclasses import dataclass, field

from psycopg2 import sql

from .database import Connection, Hold, unheld
from .errors import OperatorError
from .key_columns import key_columns, lock_number
from .locks import describe
from .plan import Plan
from .table import READING, WRITING, Cursor, LockNotObtained, columns_of, table_name, transaction

_REPLACES_TRIGGERS = 140_000  # server version: CREATE OR REPLACE TRIGGER, also for one that is disabled
_HARMLESS_TO_RAISE = {"AccessShareLock", "RowShareLock"}  # held together with SHARE ROW EXCLUSIVE


@dataclass(frozen=True)
class Change:
    """What raising or lowering did, or in check mode would do. States are raised, lowered and partial."""

    before: str
    state: str
    statements: list[str]
    attempts: int  # how often the lock was asked for
    warnings: list[str] = field(default_factory=list)  # whole phrases for a person


# Executed without parameters, so percent signs stand for themselves.
_BODY = """
-- {about}
#variable_conflict use_column
BEGIN
    IF NOT EXISTS (SELECT FROM (SELECT NEW.*) AS {name} WHERE ({predicate}
    )){null_key} THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        IF {same_key_as_before} AND EXISTS (SELECT FROM (SELECT OLD.*) AS {name} WHERE ({predicate}
        )) THEN
            RETURN NULL;
        END IF;
    END IF;
    PERFORM pg_catalog.pg_advisory_xact_lock({lock});
    -- FOR SHARE waits, as the index would, for a transaction that is just closing the other row, and looks again.
    PERFORM FROM {table} WHERE ({predicate}
    ) AND {same_key} AND NOT ({same_row}) LIMIT 1 FOR SHARE;
    IF FOUND THEN
        RAISE unique_violation USING
            MESSAGE = {message},
            DETAIL = pg_catalog.concat({detail}, pg_catalog.concat_ws(', ', {key_texts}), ') already exists.'),
            SCHEMA = {schema}, TABLE = {bare_table}, CONSTRAINT = {index};
    END IF;
    RETURN NULL;
END
"""

_FUNCTION = """CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off AS {body}"""

# Would the fence's look-up for each new row find its key by an index? The index that keeps the rule counts as well.
_KEY_INDEX = """
SELECT FROM pg_catalog.pg_index AS x JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid
JOIN pg_catalog.pg_am AS m ON m.oid = i.relam
WHERE x.indrelid = pg_catalog.to_regclass(%(table)s) AND x.indisvalid AND x.indislive
    AND m.amname IN ('btree', 'hash') AND (x.indpred IS NULL OR i.relname = %(rule)s)
    AND x.indnkeyatts >= %(size)s AND %(key)s::text[] = ARRAY(
        SELECT coalesce(a.attname::text, '')
        FROM pg_catalog.unnest(x.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
        LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = k.attnum
        WHERE k.place <= %(size)s ORDER BY 1)
"""

_TRIGGERS = """
SELECT t.tgname::text, t.tgenabled::text, n.nspname::text, f.proname::text, f.prosrc
FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS f ON f.oid = t.tgfoid
JOIN pg_catalog.pg_namespace AS n ON n.oid = f.pronamespace
WHERE t.tgrelid = pg_catalog.to_regclass(%s) AND t.tgname = ANY (%s)
"""


def fence_state(connection: Connection, plan: Plan) -> str:
    """raised; lowered; or partial: a trigger is missing or disabled, or the function is not this plan's."""
    with transaction(connection, READING, plan) as cursor:
        columns_of(cursor, plan)
        return _state(cursor, plan)


def raise_fence(
    connection: Connection, plan: Plan, *, lock_attempts: int = 10, check: bool = False, hold: Hold = unheld
) -> Change:
    """Raise the fence, or repair a partial one. Waits for the writers in flight: afterwards all they wrote is visible.

    The lock stops writers, not readers, while it is waited for: at most the connection's lock_timeout per attempt.
    """
    return _change(connection, plan, "raised", lock_attempts, check, hold)


def lower_fence(
    connection: Connection, plan: Plan, *, lock_attempts: int = 10, check: bool = False, hold: Hold = unheld
) -> Change:
    """Take the fence away. PostgreSQL wants an exclusive lock for that: while an attempt waits, readers wait too."""
    return _change(connection, plan, "lowered", lock_attempts, check, hold)


def _change(connection: Connection, plan: Plan, wanted: str, lock_attempts: int, check: bool, hold: Hold) -> Change:
    for attempt in range(1, lock_attempts + 1):
        try:
            with transaction(connection, READING if check else WRITING, plan) as cursor:
                if not check:
                    hold(connection)
                columns_of(cursor, plan)
                before = _state(cursor, plan)
                if before == wanted:
                    return Change(before, before, [], 0)
                steps = _raising(cursor, plan) if wanted == "raised" else _lowering(plan)
                if not check:
                    for step in steps:
                        cursor.execute(step)
                warnings = _warnings(cursor, plan) if wanted == "raised" else []
                return Change(before, wanted, [step.as_string(cursor) for step in steps], attempt, warnings)
        except LockNotObtained as stop:
            if attempt == lock_attempts:
                raise _gave_up(plan, wanted, attempt, stop) from stop
        # Jitter around a doubling pause: a deploy and a nightly job must not meet again and again.
        time.sleep(random.uniform(0.5, 1.5) * min(0.05 * 2**attempt, 2))  # noqa: S311  (jitter, not a secret)
    raise ValueError("lock_attempts must be at least 1")


def _gave_up(plan: Plan, wanted: str, attempts: int, stop: LockNotObtained) -> OperatorError:
    blockers = stop.details["blockers"]
    if wanted == "raised":
        blockers = [session for session in blockers if set(session["modes"]) - _HARMLESS_TO_RAISE]
    return OperatorError(
        f"The write fence on {table_name(plan)} could not be {wanted} in {attempts} attempts; {describe(blockers)}.",
        expected="a moment in which no other session holds such a lock.",
        next_step="wait for those sessions or end them, then run this again; the fence is as it was before.",
        blockers=blockers,
        attempts=attempts,
    )


def _names(plan: Plan) -> tuple[str, dict[str, str]]:
    """The function's name, and the triggers' names by event. From a hash: plan ids may be longer than names may be."""
    short = f"fence_{hashlib.sha256(plan.id.encode()).hexdigest()[:12]}"
    return short, {event: f"at_most_one_{short}_{event.lower()}" for event in ("INSERT", "UPDATE")}


def _table(plan: Plan) -> sql.Identifier:
    return sql.Identifier(plan.schema, plan.table)


def _warnings(cursor: Cursor, plan: Plan) -> list[str]:
    key = sorted(plan.key)
    table = _table(plan).as_string(cursor)
    cursor.execute(_KEY_INDEX, {"table": table, "rule": plan.rule_index.name, "size": len(key), "key": key})
    if cursor.rowcount:
        return []
    index = sql.SQL("CREATE INDEX CONCURRENTLY ON {} ({})").format(
        _table(plan), sql.SQL(", ").join(map(sql.Identifier, plan.key))
    )
    return [
        f"No valid index without a predicate starts with the key of {table_name(plan)} ({', '.join(plan.key)}): while "
        "the write fence stands, each new row inside the rule scans the whole table. "
        f"Next: if that is too slow, {index.as_string(cursor)} first."
    ]


def _state(cursor: Cursor, plan: Plan) -> str:
    function, triggers = _names(plan)
    cursor.execute(_TRIGGERS, (_table(plan).as_string(cursor), list(triggers.values())))
    found = [(enabled, tuple(place)) for _, enabled, *place in cursor.fetchall()]
    if not found:
        return "lowered"
    body = _body(cursor, plan).as_string(cursor)
    intact = [place == ("at_most_one", function, body) and enabled in "OA" for enabled, place in found]
    return "raised" if len(intact) == len(triggers) and all(intact) else "partial"


def _raising(cursor: Cursor, plan: Plan) -> list[sql.Composed]:
    """The statements that raise the fence; the table's lock comes late and is held for the two triggers only."""
    function, triggers = _names(plan)
    qualified = sql.Identifier("at_most_one", function)
    create, mode, stale = "CREATE OR REPLACE TRIGGER", "SHARE ROW EXCLUSIVE", []
    if cursor.connection.server_version < _REPLACES_TRIGGERS:
        cursor.execute(_TRIGGERS, (_table(plan).as_string(cursor), list(triggers.values())))
        stale = [name for name, *_ in cursor.fetchall()]
        # The lock that DROP TRIGGER will want, at once: two sessions that both grow a lock deadlock.
        create, mode = "CREATE TRIGGER", "ACCESS EXCLUSIVE" if stale else mode
    cursor.execute("SELECT pg_catalog.to_regnamespace('at_most_one') IS NULL")
    steps = [sql.SQL("CREATE SCHEMA IF NOT EXISTS at_most_one").format()] if cursor.fetchone() == (True,) else []
    steps += [
        sql.SQL(_FUNCTION).format(function=qualified, body=sql.Literal(_body(cursor, plan).as_string(cursor))),
        sql.SQL("REVOKE ALL ON FUNCTION {}() FROM PUBLIC").format(qualified),
        sql.SQL("LOCK TABLE {} IN {} MODE").format(_table(plan), sql.SQL(mode)),
        # Rows that row security hides from us would be hidden from the function: a 42501 now, not one per write later.
        sql.SQL("SELECT FROM {} LIMIT 0").format(_table(plan)),
        *(sql.SQL("DROP TRIGGER {} ON {}").format(sql.Identifier(name), _table(plan)) for name in stale),
    ]
    steps += [
        sql.SQL("{} {} AFTER {} ON {} FOR EACH ROW EXECUTE FUNCTION {}()").format(
            sql.SQL(create), sql.Identifier(name), sql.SQL(event), _table(plan), qualified
        )
        for event, name in triggers.items()
    ]
    return steps


def _lowering(plan: Plan) -> list[sql.Composed]:
    function, triggers = _names(plan)
    return [
        sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(_table(plan)),
        *(
            sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(sql.Identifier(name), _table(plan))
            for name in triggers.values()
        ),
        sql.SQL("DROP FUNCTION IF EXISTS {}()").format(sql.Identifier("at_most_one", function)),
    ]


def _body(cursor: Cursor, plan: Plan) -> sql.Composed:
    columns = key_columns(cursor, plan)
    distinct_nulls = not plan.rule_index.nulls_not_distinct
    here = {name: sql.Identifier(plan.table, name) for name in [*plan.key, *plan.primary_key]}
    new = {name: sql.SQL("NEW.{}").format(sql.Identifier(name)) for name in here}
    old = {name: sql.SQL("OLD.{}").format(sql.Identifier(name)) for name in here}

    def equal(name: str, one: sql.Composable, nulls_are_distinct: bool) -> sql.Composed:
        both = columns[name].equal(one, new[name])
        if nulls_are_distinct:
            return both
        return sql.SQL("({} OR {} IS NULL AND {} IS NULL)").format(both, one, new[name])

    return sql.SQL(_BODY).format(
        about=sql.SQL(f"at-most-one, plan {' '.join(plan.id.split())}"),
        name=sql.Identifier(plan.table),
        table=_table(plan),
        predicate=sql.SQL(plan.predicate),
        null_key=sql.SQL("").join(sql.SQL(" OR {} IS NULL").format(new[name]) for name in plan.key if distinct_nulls),
        same_key_as_before=sql.SQL(" AND ").join(equal(name, old[name], False) for name in plan.key),
        lock=lock_number(plan, columns),
        same_key=sql.SQL(" AND ").join(equal(name, here[name], distinct_nulls) for name in plan.key),
        same_row=sql.SQL(" AND ").join(sql.SQL("{} = {}").format(here[name], new[name]) for name in plan.primary_key),
        # The words of PostgreSQL's own error: Prisma and other drivers read the columns from DETAIL.
        message=sql.Literal(f'duplicate key value violates unique constraint "{plan.rule_index.name}"'),
        detail=sql.Literal(f"Key ({', '.join(columns[name].printed for name in plan.key)})=("),
        key_texts=sql.SQL(", ").join(sql.SQL("coalesce({}::text, 'null')").format(new[name]) for name in plan.key),
        schema=sql.Literal(plan.schema),
        bare_table=sql.Literal(plan.table),
        index=sql.Literal(plan.rule_index.name),
    )
