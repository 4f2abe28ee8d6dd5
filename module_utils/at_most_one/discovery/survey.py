"""Which rules a database may want: found in the catalog, counted within a deadline, with what deploying one would cost.

Nothing is written, and no value of a row is returned but the literals that a condition needs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psycopg2
import psycopg2.errors

from ..errors import OperatorError
from ..findings import observed, say
from ..indexes import write_pause
from ..plan import parse
from ..postgres import server_errors
from ..postgres.connection import Connection, Login, connect
from . import candidates, catalog_facts, counting, writing
from .candidates import Candidate
from .counting import Deadline

_MOST_COUNTS = 24  # full scans of one call, whatever the database holds
_PER_TABLE = 6
_CATALOG_S = 20.0  # for one of its statements; never less than the second, however short the deadline
_CATALOG_LEAST_S = 5.0


@dataclass(frozen=True)
class Request:
    """What to look for: everywhere, in one schema, one table (with or without its schema), for one key."""

    table: str = ""
    key: tuple[str, ...] = ()
    limit: int = 5  # how many candidates are shown
    deadline_s: float = 90.0
    each_s: float = 20.0  # for one count
    lock_timeout_ms: int = 3_000


@dataclass(frozen=True)
class Survey:
    """The candidates, the likeliest first, and what was looked at: ``scans`` counts readings of a whole table."""

    candidates: tuple[Candidate, ...]
    forecasts: tuple[int | None, ...]  # milliseconds that writers wait for a plain build; None where it is not known
    tables: int
    found: int
    scans: int
    unread: tuple[str, ...]
    seconds: float

    def facts(self) -> dict[str, Any]:
        """As data, for a module's result."""
        return {
            "candidates": [
                _facts(number, one, pause_ms)
                for number, (one, pause_ms) in enumerate(zip(self.candidates, self.forecasts), 1)
            ],
            **{name: getattr(self, name) for name in ("tables", "found", "scans", "seconds")},
            "unread": list(self.unread),
        }


def survey(login: Login, request: Request) -> Survey:
    """Find, count, rank. Raises OperatorError when the catalog cannot be read or holds no such table or key."""
    started = time.monotonic()
    deadline = Deadline(started + request.deadline_s, request.each_s)
    with connect(login, lock_timeout_ms=request.lock_timeout_ms) as connection:
        tables = _tables(connection, request, deadline)
        counting.add_values(connection, tables, deadline)
        found = candidates.of_tables(tables, request.key)
        ranked = candidates.ranked([*_counted(connection, found, deadline)])
        shown = tuple(ranked[: request.limit])
        forecasts = tuple(_forecast_ms(connection, one, deadline) for one in shown)
    return Survey(
        shown,
        forecasts,
        len(tables),
        len(found),
        deadline.scans,
        tuple(deadline.unread),
        round(time.monotonic() - started, 1),
    )


def choose(login: Login, request: Request, found: Survey, number: int, plan_id: str, when: str) -> writing.Files:
    """The files of the plan for the candidate of this number; ``when`` begins the migration's name (YYYYMMDDhhmmss).

    Raises OperatorError unless it is one of those shown, with an exact count: a plan says what was counted.
    """
    writing.require_id(plan_id)
    if not 1 <= number <= len(found.candidates):
        raise OperatorError(
            observed(
                "AMO-2501",
                "discover_choice is {number}, and there are {count} candidates.",
                number=number,
                count=len(found.candidates),
            ),
            expected=say("the number of a candidate that is shown."),
            next_step=say(
                "run discover.yml without discover_choice, and choose one of its numbers; discover_table "
                "and discover_key name a table and a key that are not among them."
            ),
        )
    candidate = found.candidates[number - 1]
    with connect(login, lock_timeout_ms=request.lock_timeout_ms) as connection:
        if candidate.count.how != "exact":
            deadline = Deadline(time.monotonic() + request.deadline_s, request.deadline_s)
            count, size = counting.count(connection, candidate, deadline)
            candidate = candidates.counted(candidate, count, size)
        if candidate.count.how != "exact":
            raise OperatorError(
                observed(
                    "AMO-2502",
                    "The duplicates of {schema}.{table} were not counted in {deadline_s} s.",
                    schema=candidate.table.schema,
                    table=candidate.table.name,
                    deadline_s=f"{request.deadline_s:.0f}",
                ),
                expected=say("an exact count, which the plan compares with what a run finds."),
                next_step=say(
                    "raise discover_deadline_s, or name discover_table and discover_key so that nothing else "
                    "is counted; then the same again."
                ),
            )
        with counting.reading(connection, round(1000 * _CATALOG_S)) as cursor:
            names = writing.index_names(candidate)
            cursor.execute(
                "SELECT c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n"
                " ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = ANY (%s)",
                (candidate.table.schema, names),
            )
            taken = {name for (name,) in cursor.fetchall()}
        free = next((name for name in names if name not in taken), names[-1])
        return writing.files(connection, candidate, plan_id, free, when)


def _tables(connection: Connection, request: Request, deadline: Deadline) -> list[catalog_facts.Table]:
    schema, _, name = request.table.rpartition(".")
    limit_s = max(_CATALOG_LEAST_S, min(_CATALOG_S, deadline.left_s()))
    try:
        with counting.reading(connection, round(1000 * limit_s)) as cursor:
            tables = catalog_facts.read(cursor, schema or None, name or None)
    except psycopg2.Error as failure:
        said = server_errors.explain(
            failure,
            say("a catalog that answers in seconds, and no table locked exclusively for longer than lock_timeout."),
            say("look at pg_stat_activity for who holds it, then run discover.yml again; nothing was written."),
        )
        raise OperatorError(
            observed("AMO-2503", "The catalog could not be read: {message}.", message=said.message),
            expected=said.expected,
            next_step=said.next_step,
        ) from failure
    if not tables:
        raise OperatorError(
            (
                observed("AMO-2504", "There is no table {table}.", table=request.table)
                if request.table
                else observed("AMO-2505", "There is no table to look at.")
            ),
            expected=say(
                "an ordinary, logged table outside the system's schemas that this role may read; "
                "partitioned tables and views do not count."
            ),
            next_step=say("name discover_table as schema.table, and grant USAGE on its schema and SELECT on it."),
        )
    unkeyed = sorted(f"{one.schema}.{one.name}" for one in tables if not one.primary_key)
    if request.table and len(unkeyed) == len(tables):
        raise OperatorError(
            observed("AMO-2506", "{unkeyed} has no primary key.", unkeyed=", ".join(unkeyed)),
            expected=say("a primary key: a plan names rows by it."),
            next_step=say("add one in a migration of its own, then run discover.yml again."),
        )
    if request.key and not any(set(request.key) <= set(one.columns) for one in tables):
        raise OperatorError(
            observed(
                "AMO-2507",
                "No table {table} has the columns {key}.",
                table=request.table or say("that this role may read"),
                key=", ".join(request.key),
            ),
            expected=say("columns of one table that are not generated."),
            next_step=say(
                "correct discover_key; it is a list of column names, as in -e discover_key=user_id,course_id."
            ),
        )
    return tables


def _counted(connection: Connection, found: Sequence[Candidate], deadline: Deadline) -> list[Candidate]:
    """The likeliest ones counted, so many of each table and in all; the others as they were."""
    of_table: dict[int, int] = {}
    done: list[Candidate] = []
    for one in found:
        number = one.table.number
        if len(done) == _MOST_COUNTS or of_table.get(number, 0) == _PER_TABLE:
            continue
        of_table[number] = of_table.get(number, 0) + 1
        count, size = counting.count(connection, one, deadline)
        done.append(candidates.counted(one, count, size))
    return done


def _forecast_ms(connection: Connection, candidate: Candidate, deadline: Deadline) -> int | None:
    """How long writers would wait for a plain build, as deploy.yml --check measures it: on temporary tables.

    None where that is not known: no time is left, the role may make no temporary table, or the server is a standby.
    """
    limit_ms = deadline.next_ms(10.0)
    if not limit_ms:
        return None
    plan = parse(writing.data(candidate, "forecast", writing.index_names(candidate)[0], "0"))
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_catalog.set_config('statement_timeout', %s, true)", (str(limit_ms),))
        return write_pause.write_pause(connection, plan).write_pause_ms
    except OperatorError:
        return None
    finally:
        if not connection.closed:
            connection.rollback()


def _facts(number: int, one: Candidate, pause_ms: int | None) -> Mapping[str, Any]:
    table = one.table
    return {
        "number": number,
        "schema": table.schema,
        "table": table.name,
        "key": list(one.key.columns),
        "condition": one.condition.sql,
        **asdict(one.count),
        "score": round(one.score, 2),
        "table_rows": None if table.rows is None else round(table.rows),
        "table_bytes": one.table_bytes,
        "references": [dict(reference) for reference in table.references],
        "triggers": list(table.triggers),
        "write_pause_ms": pause_ms,
        "index_bytes": one.index_bytes,
        "plan_id": writing.suggested_id(one),
    }
