"""The statements of one batch of a removal: take the rows, archive and remove them, see that they are gone.

All of them are planned once and run for each batch, so what differs between batches is a parameter (MOVING).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from psycopg2 import sql

from ..plan import Plan
from ..postgres import replication
from ..postgres.catalog import Column, predicate_sql, without_null_keys
from ..postgres.partitions import tree
from ..system.strict_zip import strict_zip
from . import archive, effects
from .ranking import equal, listed, numbered, of, text_array
from .worklist import MEMBER, member, member_at_its_place

# What a Hold requires, within the batch's one statement: the run's row, kept open until the batch has committed.
_HELD = "SELECT FROM at_most_one.run WHERE run_id = %(run_id)s AND finished_at IS NULL FOR KEY SHARE"

_BATCH = """
WITH setting AS MATERIALIZED (
    SELECT pg_catalog.set_config('search_path', %(search_path)s, true),
        pg_catalog.set_config('lock_timeout', %(lock_timeout)s, true),
        pg_catalog.set_config('application_name', %(application)s, false)),
held AS MATERIALIZED ({held}),
surplus AS MATERIALIZED (
    SELECT member.* FROM {member} AS member, setting
    WHERE EXISTS (SELECT FROM held) AND at_most_one_place > 1 AND at_most_one_requested
        AND at_most_one_position >= %(first)s AND at_most_one_position < %(first)s + %(size)s),
keeper AS MATERIALIZED (
    SELECT at_most_one_head AS at_most_one_keeper,
        pg_catalog.jsonb_object(%(key_names)s::text[], {key_texts}) AS at_most_one_keeper_key
    FROM {table} JOIN {member} AS at_most_one_member ON {is_the_row}
    WHERE at_most_one_position IN (SELECT at_most_one_head FROM surplus) AND {unchanged}
    ORDER BY {key} FOR UPDATE OF {alone}),
going AS MATERIALIZED (
    SELECT * FROM surplus JOIN keeper ON at_most_one_head = at_most_one_keeper)"""

# Only where something must be seen of the row before it goes: who refers to it, what it was before an UPDATE.
_LOCKED = """{batch},
locked AS MATERIALIZED (
    SELECT {parts}, at_most_one_member.*, {image} AS at_most_one_image
    FROM {table} JOIN going AS at_most_one_member ON {is_member} WHERE {unchanged}{as_reviewed}
    ORDER BY {key} FOR UPDATE OF {alone})"""

_DELETE = """{taken},
removed AS (
    DELETE FROM {table} USING {source} AS at_most_one_member WHERE {found} AND {unchanged}{as_reviewed}
    RETURNING {key_texts} AS key, at_most_one_keeper_key AS keeper, {image} AS row, NULL::text AS after_sha256,
        true AS as_planned, at_most_one_position)"""

_UPDATE = """{taken},
removed AS (
    UPDATE {table} SET {values} FROM locked AS at_most_one_member WHERE {is_member}
    RETURNING {key_texts} AS key, at_most_one_keeper_key AS keeper, at_most_one_image AS row,
        {after} AS after_sha256, {as_planned} AS as_planned, at_most_one_position)"""

_ARCHIVE = """{removed},
archived AS (
    INSERT INTO at_most_one.archived_row
        (run_id, plan_id, table_schema, table_name, primary_key, keeper, row, row_sha256, action, after_sha256)
    SELECT %(run_id)s, %(plan_id)s, %(schema)s, %(table)s,
        pg_catalog.jsonb_object(%(key_names)s::text[], key), keeper, row, {hash}, %(action)s, after_sha256
    FROM removed RETURNING id)
SELECT EXISTS (SELECT FROM held), (SELECT pg_catalog.count(*) FROM {expected}),
    (SELECT pg_catalog.count(*) FROM archived), (SELECT pg_catalog.count(*) FROM removed WHERE NOT as_planned),
    (SELECT pg_catalog.min(id) FROM archived), (SELECT pg_catalog.max(id) FROM archived),
    (SELECT pg_catalog.array_agg(key) FROM (
        SELECT key FROM removed ORDER BY at_most_one_position LIMIT %(examples)s) AS shown), {replicas}"""

# What the archive got from this batch and the table still holds; for an UPDATE, holds otherwise than recorded. Nothing
# but a trigger can bring a removed row back: of the table, or of one whose foreign key acts on its rows. Without any,
# there is nothing to look for; and none can be created while the batch lasts, which holds a lock against that.
_WRONG = {
    "delete": """SELECT CASE WHEN EXISTS (
            SELECT FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
            WHERE NOT t.tgisinternal AND t.tgenabled <> 'D'
                AND p.pronamespace IS DISTINCT FROM pg_catalog.to_regnamespace('at_most_one')
                AND (t.tgrelid IN {tree} OR t.tgrelid IN (
                    SELECT f.conrelid FROM pg_catalog.pg_constraint AS f WHERE f.confrelid IN {tree})))
        THEN (SELECT pg_catalog.count(*) FROM {archived} JOIN {table} ON {is_archived} WHERE {mine}) ELSE 0 END""",
    "update": """SELECT pg_catalog.count(*) FROM {archived} LEFT JOIN {table} ON {is_archived}
        WHERE {mine} AND at_most_one_archived.after_sha256 IS DISTINCT FROM {recorded}""",
}
_MINE = sql.SQL(
    "at_most_one_archived.id BETWEEN %(first_id)s AND %(last_id)s AND at_most_one_archived.run_id = %(run_id)s"
)

MOVING = {"first": "bigint", "size": "bigint", "lock_timeout": "text", "application": "text", "examples": "bigint"}


def _same_bytes(ones: Iterable[sql.Composable], others: Iterable[sql.Composable]) -> sql.Composed:
    """Needs no operator of the columns' types, which search_path might not find, and no index."""
    return sql.SQL("ROW({})::record OPERATOR(pg_catalog.*=) ROW({})::record").format(listed(ones), listed(others))


class Statements:
    """The SQL for one plan, table and run, with its parameters."""

    def __init__(
        self,
        plan: Plan,
        columns: Mapping[str, Column],
        run_id: str,
        search_path: str,
        *,
        held: bool,
        only_unchanged: bool,
    ) -> None:
        self.plan, self.columns = plan, columns
        size = len(plan.primary_key)
        key = of(plan.table, plan.primary_key)
        here = [*of(plan.table, plan.key), *of(plan.table, [sort.column for sort in plan.keep])]
        there = [*member("k", len(plan.key)), *member("s", len(plan.keep))]
        member_key = of("at_most_one_member", [f"at_most_one_p{number}" for number in range(size)])
        image = archive.image(list(columns.values()), sql.Identifier(plan.table), sql.Placeholder("search_path"))
        self.parts: dict[str, sql.Composable] = {
            "held": sql.SQL(_HELD if held else "SELECT"),
            "member": MEMBER,
            "table": sql.Identifier(plan.schema, plan.table),
            "alone": sql.Identifier(plan.table),
            "key": listed(key),
            "key_texts": text_array(key),
            "is_member": equal(key, member_key),
            # Where the row was when it was ranked: found without an index. One that was updated since is elsewhere.
            "is_the_row": sql.SQL("{} AND {}").format(member_at_its_place(plan), _same_bytes(key, member_key)),
            "unchanged": sql.SQL("{}{} AND {}").format(
                predicate_sql(plan), without_null_keys(plan), _same_bytes(here, there)
            ),
            "as_reviewed": sql.SQL(" AND at_most_one_member.at_most_one_content = {}").format(
                archive.content(list(columns.values()), sql.Identifier(plan.table))
            )
            if only_unchanged
            else sql.SQL(""),
            "parts": listed(sql.SQL("{} AS {}").format(*pair) for pair in strict_zip(key, numbered("p", size))),
            "image": image,
            "after": archive.sha256(image),
            "hash": archive.sha256(sql.SQL("row")),
            "replicas": replication.LAGS,
            "values": listed(
                sql.SQL("{} = {}::{}").format(
                    sql.Identifier(name), sql.Placeholder(f"value{number}"), sql.SQL(columns[name].type)
                )
                for number, name in enumerate(plan.surplus.values)
            ),
            "as_planned": _same_bytes(
                of(plan.table, plan.surplus.values),
                [
                    sql.SQL("{}::{}").format(sql.Placeholder(f"value{number}"), sql.SQL(columns[name].declared))
                    for number, name in enumerate(plan.surplus.values)
                ],
            ),
        }
        self.parameters: dict[str, Any] = {
            "run_id": run_id,
            "plan_id": plan.id,
            "schema": plan.schema,
            "table": plan.table,
            "key_names": list(plan.primary_key),
            "action": plan.surplus.action,
            "search_path": search_path,
            **{f"value{number}": value for number, value in enumerate(plan.surplus.values.values())},
        }

    def find_by_key(self) -> None:
        """Look rows up by their primary key instead of their place: somebody keeps updating them, or there are many
        partitions to look in, of which the primary key tells which."""
        self.parts["is_the_row"] = self.parts["is_member"]

    def _with(self, template: str, **more: sql.Composable) -> sql.Composed:
        return sql.SQL(template).format(**self.parts, **more)

    def locked(self) -> sql.Composed:
        """The WITH clause that locks the batch's keepers and its surplus rows: ``locked`` has the latter's p0, ..."""
        return self._with(_LOCKED, batch=self._with(_BATCH))

    def removal(self, *, lock_first: bool = False) -> sql.Composed:
        """Lock, look again, archive and remove. Returns whether the run is held, then what makes a _Done.

        ``lock_first`` locks the rows by a step of its own, as an UPDATE does anyway: then all that are locked must go.
        """
        if self.plan.surplus.action == "update":
            removed, expected = self._with(_UPDATE, taken=self.locked()), "locked"
        elif lock_first:
            parts = {"source": self._locked_members(), "found": self.parts["is_member"]}
            removed, expected = self._with(_DELETE, taken=self.locked(), **parts), "locked"
        else:
            parts = {"source": sql.SQL("going"), "found": self.parts["is_the_row"]}
            removed, expected = self._with(_DELETE, taken=self._with(_BATCH), **parts), "surplus"
        return self._with(_ARCHIVE, removed=removed, expected=sql.SQL(expected))

    def _locked_members(self) -> sql.Composed:
        """What the DELETE needs of ``locked``, without its p0, ...: the table may have a column of such a name, which
        the plan's predicate names without the table."""
        plan = self.plan
        sizes = {"p": len(plan.primary_key), "k": len(plan.key), "s": len(plan.keep)}
        names = [name for prefix, count in sizes.items() for name in member(prefix, count)]
        others = ("at_most_one_content", "at_most_one_keeper_key", "at_most_one_position")
        return sql.SQL("(SELECT {} FROM locked)").format(listed([*names, *map(sql.Identifier, others)]))

    def wrong(self) -> sql.Composed:
        """How many rows of the archive, from first_id to last_id, are not as they should be in the table; and what
        there is now that a removal has to know (effects.KNOWN)."""
        keys = [
            sql.SQL("(at_most_one_archived.primary_key ->> {})::{}").format(
                sql.Literal(name), sql.SQL(self.columns[name].type)
            )
            for name in self.plan.primary_key
        ]
        wrong = self._with(
            _WRONG[self.plan.surplus.action],
            archived=sql.SQL("at_most_one.archived_row AS at_most_one_archived"),
            is_archived=equal(of(self.plan.table, self.plan.primary_key), keys),
            mine=_MINE,
            recorded=archive.sha256(archive.image(list(self.columns.values()), sql.Identifier(self.plan.table))),
            tree=sql.SQL(tree("pg_catalog.to_regclass(pg_catalog.format('%%I.%%I', %(schema)s, %(table)s))::oid")),
        )
        return sql.SQL("SELECT ({}), {}").format(wrong, sql.SQL(effects.KNOWN))
