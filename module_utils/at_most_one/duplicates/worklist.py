"""What one clean-up works through: the reviewed rows and the groups they are in, in temporary tables of the session.

Nobody else sees these tables, they are gone with the session, and Python never holds the rows. They live in a session,
not in a transaction, so that every batch can be a transaction of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import psycopg2.errors
from psycopg2 import sql

from ..errors import OperatorError
from ..findings import observed, say
from ..plan import Plan
from ..postgres import copy
from ..postgres.catalog import Column, Cursor, Row, predicate_sql, table_name, without_null_keys
from ..system.strict_zip import strict_zip
from . import archive
from .plan_file import Digest
from .ranking import at_its_place, duplicates, equal, keys, listed, numbered, of, parts_of, text_array

REQUESTED = sql.SQL("pg_temp.at_most_one_requested")
MEMBER = sql.SQL("pg_temp.at_most_one_member")


@dataclass(frozen=True)
class Work:
    """What the table holds and what of it is to go, as of one snapshot."""

    groups: int  # duplicate groups in the table
    rows: int  # surplus rows in the table
    planned: int  # surplus rows that were requested
    groups_left: int  # once those are gone
    members: int  # rows of all groups: the highest position


def load(
    cursor: Cursor,
    plan: Plan,
    columns: Mapping[str, Column],
    rows: Iterable[Sequence[str]],
    *,
    only_unchanged: bool = False,
) -> Digest:
    """Stream ``rows`` to the server, each a primary key, or one and the hash of the row's content behind it.

    Returns the digest of what went by. A row that is named twice is refused, and with ``only_unchanged`` one without
    the hash.
    """
    parts = numbered("p", len(plan.primary_key))
    typed = strict_zip(parts, plan.primary_key)
    cursor.execute(
        sql.SQL("CREATE TEMPORARY TABLE at_most_one_requested ({}, content text)").format(
            listed(sql.SQL("{} {} NOT NULL").format(part, sql.SQL(columns[name].type)) for part, name in typed)
        )
    )
    seen = Digest()
    copy.write(cursor, REQUESTED, _checked(plan, rows, seen, only_unchanged=only_unchanged))
    try:
        cursor.execute(sql.SQL("CREATE UNIQUE INDEX ON {} ({})").format(REQUESTED, listed(parts)))
    except psycopg2.errors.UniqueViolation as failure:
        raise OperatorError(
            observed(
                "AMO-3214",
                "A row of {table} is named twice among the {count} given ones.",
                table=table_name(plan),
                count=seen.count,
            ),
            expected=say("each row once."),
            next_step=say("make the report again, review it, and give its rows and its digest together."),
        ) from failure
    return seen


def _checked(
    plan: Plan, rows: Iterable[Sequence[str]], seen: Digest, *, only_unchanged: bool
) -> Iterator[Sequence[str]]:
    size = len(plan.primary_key)
    sizes = (size + 1,) if only_unchanged else (size, size + 1)
    for row in rows:
        if len(row) not in sizes:
            content = say(" and the hash of the row's content behind it") if only_unchanged else ""
            raise OperatorError(
                observed(
                    "AMO-3215",
                    "Given row {number} does not have the {size} parts of a primary key of {table}{content}.",
                    number=seen.count + 1,
                    size=size,
                    table=table_name(plan),
                    content=content,
                ),
                expected=say(
                    "for each row a list: {primary_key}{more}.",
                    primary_key=", ".join(plan.primary_key),
                    more=", content" if content else "",
                ),
                next_step=say("give the rows of a report made with this plan."),
            )
        seen.add(row)
        yield row if len(row) > size else [*row, ""]


# position: through all groups in the order of their keys, best row first; head: the position of the group's best row.
# rank() counts the rows of the groups before, so the sort that ranked the rows serves once more.
_RANK = """
CREATE TEMPORARY TABLE at_most_one_member AS
SELECT {named}, placed.place_in_table AS at_most_one_ctid, placed.place_in_parts AS at_most_one_tableoid,
    placed.place AS at_most_one_place,
    placed.size AS at_most_one_size, requested.p0 IS NOT NULL AS at_most_one_requested,
    requested.content AS at_most_one_content,
    placed.head + placed.place - 1 AS at_most_one_position, placed.head AS at_most_one_head
FROM (SELECT duplicate.*, pg_catalog.rank() OVER (ORDER BY {keys}) AS head FROM ({duplicates}) AS duplicate) AS placed
LEFT JOIN {requested} AS requested ON {same}"""

# A row that has moved since it was ranked is met by its batch, which looks at its content again.
_LEAVE_CHANGED = """
UPDATE {member} AS at_most_one_member SET at_most_one_requested = false FROM {table}
WHERE at_most_one_requested AND at_most_one_place > 1 AND {at_its_place}
    AND at_most_one_content <> {content}"""

_FIGURES = """
SELECT pg_catalog.count(*) FILTER (WHERE at_most_one_place = 1),
    pg_catalog.count(*) FILTER (WHERE at_most_one_place > 1),
    pg_catalog.count(*) FILTER (WHERE at_most_one_place > 1 AND at_most_one_requested),
    pg_catalog.count(DISTINCT at_most_one_head) FILTER (WHERE at_most_one_place > 1 AND NOT at_most_one_requested),
    pg_catalog.count(*)
FROM {member}"""


def member(prefix: str, count: int) -> list[sql.Composable]:
    """The columns of the member table that stand for p0, k0, s0, ...: no table has a column of such a name.

    Its rows are joined to the planned table, and the plan's predicate names columns without their table.
    """
    return [sql.Identifier(f"at_most_one_{prefix}{number}") for number in range(count)]


def member_at_its_place(plan: Plan) -> sql.Composed:
    """The condition that a row of the table is where at_most_one_member, a row of the member table, was ranked."""
    return at_its_place(plan, "at_most_one_member", named=("at_most_one_ctid", "at_most_one_tableoid"))


def rank(cursor: Cursor, plan: Plan, columns: Mapping[str, Column], *, only_unchanged: bool = False) -> Work:
    """Rank the table as it is now, and mark what was requested.

    With ``only_unchanged``, a row whose content is not the given one was not requested.
    """
    cursor.execute("DROP TABLE IF EXISTS pg_temp.at_most_one_member")
    sizes = {"p": len(plan.primary_key), "k": len(plan.key), "s": len(plan.keep)}
    named = [
        sql.SQL("placed.{} AS {}").format(*pair)
        for prefix, count in sizes.items()
        for pair in strict_zip(numbered(prefix, count), member(prefix, count))
    ]
    cursor.execute(
        sql.SQL(_RANK).format(
            named=listed(named),
            keys=keys(plan),
            duplicates=duplicates(plan),
            requested=REQUESTED,
            same=equal(parts_of("placed", plan), parts_of("requested", plan)),
        ),
        (),
    )
    cursor.execute(sql.SQL("CREATE UNIQUE INDEX ON {} (at_most_one_position)").format(MEMBER))
    if only_unchanged:
        cursor.execute(
            sql.SQL(_LEAVE_CHANGED).format(
                member=MEMBER,
                table=sql.Identifier(plan.schema, plan.table),
                at_its_place=member_at_its_place(plan),
                content=archive.content(list(columns.values()), sql.Identifier(plan.table)),
            ),
            (),
        )
    cursor.execute(sql.SQL("ANALYZE {}").format(MEMBER))
    cursor.execute(sql.SQL(_FIGURES).format(member=MEMBER))
    return Work(*cursor.fetchall()[0])


_PLANNED = "FROM {member} AS member WHERE at_most_one_place > 1 AND at_most_one_requested"


def planned(plan: Plan) -> sql.Composed:
    """The primary keys (p0, ...) of the requested rows that are surplus."""
    size = len(plan.primary_key)
    pairs = strict_zip(member("p", size), numbered("p", size))
    return sql.SQL("SELECT {parts} " + _PLANNED).format(
        parts=listed(sql.SQL("{} AS {}").format(*pair) for pair in pairs), member=MEMBER
    )


def first_rows(cursor: Cursor, plan: Plan, limit: int) -> list[tuple[int, int, Row]]:
    """(place, size of the group, primary key) of the first ``limit`` rows of all groups."""
    cursor.execute(
        sql.SQL(
            "SELECT at_most_one_place, at_most_one_size, {} FROM {} WHERE at_most_one_position <= %s"
            " ORDER BY at_most_one_position"
        ).format(text_array(member("p", len(plan.primary_key))), MEMBER),
        (limit,),
    )
    return cursor.fetchall()


def examples(cursor: Cursor, plan: Plan, limit: int) -> list[Row]:
    """The primary keys of the first requested rows that are surplus."""
    cursor.execute(
        sql.SQL("SELECT {parts} " + _PLANNED + " ORDER BY at_most_one_position LIMIT %s").format(
            parts=text_array(member("p", len(plan.primary_key))), member=MEMBER
        ),
        (limit,),
    )
    return [key for (key,) in cursor.fetchall()]


@dataclass(frozen=True)
class Unarchived:
    """A requested row that this removal has not archived, and why.

    outside: no longer in the rule; keeper: the row of its group that stays now; changed: still surplus, but changed by
    somebody since it was reviewed, or again and again; archived: an earlier run has it; gone: somebody else removed it.
    """

    row: Row
    why: str


# The requested rows, where another table stands beside them: no table has that name.
_WANTED = "at_most_one_wanted"

_STAYED = """
SELECT pg_catalog.count(*) OVER (), {key_texts}, CASE WHEN ({predicate}{keys}) IS NOT TRUE THEN 'outside'
    WHEN ({key}) IN (SELECT {parts} FROM {member} WHERE at_most_one_place > 1) THEN 'changed' ELSE 'keeper' END
FROM {table} WHERE ({key}) IN (SELECT {requested_parts} FROM {requested} AS {wanted}{without})
ORDER BY {key} LIMIT %(limit)s"""

# Joined, and not asked for by NOT IN: of a table that does not fit into work_mem that reads all of it for each row.
_GONE = """
SELECT pg_catalog.count(*) OVER (), {part_texts}, CASE WHEN kept.at_most_one_p0 IS NULL THEN 'gone' ELSE 'archived' END
FROM {requested} AS {wanted}
LEFT JOIN (SELECT DISTINCT * FROM ({archived}) AS archived ({parts})) AS kept ON {is_kept}
WHERE NOT EXISTS (SELECT FROM {table} WHERE {is_there})
    AND NOT EXISTS (SELECT FROM ({went}) AS went ({parts}) WHERE {has_left})
ORDER BY {requested_parts} LIMIT %(limit)s"""

_ABSENT = """
SELECT pg_catalog.count(*) FROM {requested} AS {wanted} WHERE NOT EXISTS (SELECT FROM {table} WHERE {is_there})"""


def stayed(
    cursor: Cursor, plan: Plan, went: sql.Composable | None, limit: int, **values: str
) -> tuple[int, list[Unarchived]]:
    """The requested rows that are in the table, without those of the query ``went``: how many, and the first ones.

    As of the latest ranking.
    """
    without = sql.SQL("") if went is None else sql.SQL(" EXCEPT {}").format(went)
    return _unarchived(cursor, plan, _STAYED, {**values, "limit": limit}, without=without)


def gone(
    cursor: Cursor, plan: Plan, archived: sql.Composable, went: sql.Composable, limit: int, **values: str
) -> list[Unarchived]:
    """The first of the requested rows that are not in the table, without those of the query ``went``.

    ``archived`` yields the keys of whatever the archive has of the plan.
    """
    size, wanted = len(plan.primary_key), parts_of(_WANTED, plan)
    joined = {
        name: equal(of(source, [f"at_most_one_p{number}" for number in range(size)]), wanted)
        for name, source in (("is_kept", "kept"), ("has_left", "went"))
    }
    return _unarchived(cursor, plan, _GONE, {**values, "limit": limit}, archived=archived, went=went, **joined)[1]


def absent(cursor: Cursor, plan: Plan) -> int:
    """How many of the requested rows are not in the table."""
    cursor.execute(
        sql.SQL(_ABSENT).format(
            requested=REQUESTED,
            wanted=sql.Identifier(_WANTED),
            table=sql.Identifier(plan.schema, plan.table),
            is_there=_is_there(plan),
        ),
        (),
    )
    ((count,),) = cursor.fetchall()
    return int(count)


def _is_there(plan: Plan) -> sql.Composed:
    """The condition that a row of the table is a requested one."""
    return equal(of(plan.table, plan.primary_key), parts_of(_WANTED, plan))


def _unarchived(
    cursor: Cursor, plan: Plan, query: str, values: Mapping[str, object], **parts: sql.Composable
) -> tuple[int, list[Unarchived]]:
    key, requested = of(plan.table, plan.primary_key), parts_of(_WANTED, plan)
    cursor.execute(
        sql.SQL(query).format(
            key=listed(key),
            key_texts=text_array(key),
            parts=listed(member("p", len(plan.primary_key))),
            requested_parts=listed(requested),
            part_texts=text_array(requested),
            requested=REQUESTED,
            wanted=sql.Identifier(_WANTED),
            is_there=_is_there(plan),
            member=MEMBER,
            table=sql.Identifier(plan.schema, plan.table),
            predicate=predicate_sql(plan),
            keys=without_null_keys(plan),
            **parts,
        ),
        values,
    )
    rows = cursor.fetchall()
    return rows[0][0] if rows else 0, [Unarchived(row, why) for _, row, why in rows]


def drop(cursor: Cursor) -> None:
    """Leave nothing in the session."""
    cursor.execute("DROP TABLE IF EXISTS pg_temp.at_most_one_requested, pg_temp.at_most_one_member")
