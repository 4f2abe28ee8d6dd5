"""Columns of a clone that nobody may read: replaced in place, and proven to be replaced, before anybody is let in."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg2 import sql

from ..errors import OperatorError
from ..findings import observed, say
from ..postgres.connection import Connection

PREFIX = "masked-"
_HOW = ("hash", "null", "text")
_COLUMN = """
SELECT a.atttypmod, t.typcategory FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attname = %s AND a.attnum > 0 AND NOT a.attisdropped
"""
# A foreign table may be a partition, or a child by inheritance: an UPDATE of its parent goes through to it.
_FOREIGN = """
WITH RECURSIVE tree (relation) AS (
  SELECT pg_catalog.to_regclass(%s)::oid
  UNION SELECT h.inhrelid FROM tree JOIN pg_catalog.pg_inherits h ON h.inhparent = tree.relation
)
SELECT n.nspname::text || '.' || c.relname::text
FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.relation JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'f' ORDER BY 1
"""
_TRIGGERS = """
SELECT tgname::text, tgenabled::text FROM pg_catalog.pg_trigger
WHERE tgrelid = %s::regclass AND NOT tgisinternal AND tgenabled <> 'D' ORDER BY 1
"""
STATES = {"O": "ENABLE", "A": "ENABLE ALWAYS", "R": "ENABLE REPLICA"}


@dataclass(frozen=True)
class Mask:
    """One column. ``hash`` keeps different values different, and says nothing of them; ``text`` makes them one text."""

    schema: str
    table: str
    column: str
    how: str
    text: str
    unless: Mapping[str, Sequence[str]]  # rows with one of these values in this column stay: the accounts of the checks

    @property
    def name(self) -> str:
        """For a person."""
        return f"{self.schema}.{self.table}.{self.column}"

    def kept(self) -> dict[str, list[str]]:
        """The parameters of :func:`others`."""
        return {f"unless_{name}": list(values) for name, values in self.unless.items()}


def parse(given: Sequence[Mapping[str, Any]]) -> list[Mask]:
    """The masks of an inventory's list. Raises OperatorError with the number of the entry that is none."""
    masks = []
    for number, entry in enumerate(given, 1):
        names = str(entry.get("column", "")).split(".")
        how = entry.get("how", "hash")
        unknown = sorted(set(entry) - {"column", "how", "text", "unless"})
        unless = entry.get("unless", {})
        whole = isinstance(unless, Mapping) and all(isinstance(values, list) for values in unless.values())
        if len(names) != 3 or how not in _HOW or unknown or not whole or (how == "text") != ("text" in entry):
            raise OperatorError(
                observed(
                    "AMO-2406",
                    "Entry {number} of rehearsal_masked_columns is no mask: {entry}.",
                    number=number,
                    entry=", ".join(map(str, entry)),
                ),
                expected=say(
                    "column: schema.table.column; how: hash (the default), null, or text with its text; and, "
                    "where rows shall stay as they are, unless: {{a column: [values]}}."
                ),
                next_step=say("correct it in the inventory, then run again. Nothing was changed."),
            )
        kept = {name: [str(value) for value in values] for name, values in unless.items()}
        masks.append(Mask(names[0], names[1], names[2], how, str(entry.get("text", "")), kept))
    return masks


def require_rows_here(connection: Connection, masks: Sequence[Mask]) -> None:
    """Raise OperatorError where a masked column is in a foreign table: its rows are another database's.

    The copy has the foreign server and its login. To mask there would change what the source still works with.
    """
    with connection.cursor() as cursor:
        for mask in masks:
            cursor.execute(_FOREIGN, (sql.Identifier(mask.schema, mask.table).as_string(cursor),))
            foreign = [name for (name,) in cursor.fetchall()]
            if foreign:
                raise OperatorError(
                    observed(
                        "AMO-2427",
                        "The masked column {mask} has rows in foreign tables: {foreign}. To mask them would change "
                        "another database.",
                        mask=mask.name,
                        foreign=", ".join(foreign),
                    ),
                    expected=say("columns whose rows are all in the copy itself."),
                    next_step=say(
                        "take it out of rehearsal_masked_columns and rehearse on a copy without these foreign tables, "
                        "because whoever may read the copy reads through them. Nothing was changed."
                    ),
                )


def apply(connection: Connection, masks: Sequence[Mask]) -> dict[str, int]:
    """Replace every value of every masked column; rows by column. In the caller's transaction, as the tables' owner.

    The tables' own triggers are off meanwhile: one that writes an audit trail would copy what is being hidden.
    """
    salt = secrets.token_hex(16)  # kept nowhere: without it a hash of a known name or number is found in seconds
    masked = {}
    for mask in masks:
        table = sql.Identifier(mask.schema, mask.table)
        with connection.cursor() as cursor:
            value, left = _value(cursor, table, mask)
            where = others(mask)
            values: dict[str, Any] = {"salt": salt, "text": mask.text, "prefix": PREFIX, **mask.kept()}
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # a pending check would forbid to switch triggers
            triggers = _off(cursor, table)
            cursor.execute(
                sql.SQL("UPDATE {} AS masked_row SET {} = {} WHERE {} IS NOT NULL AND {}").format(
                    table, sql.Identifier(mask.column), value, sql.Identifier("masked_row", mask.column), where
                ),
                values,
            )
            masked[mask.name] = cursor.rowcount
            _on(cursor, table, triggers)
            cursor.execute(
                sql.SQL("SELECT count(*) FROM {} AS masked_row WHERE {} AND {}").format(table, left, where), values
            )
            (readable,) = cursor.fetchone() or (0,)
        if readable:
            raise OperatorError(
                observed(
                    "AMO-2407",
                    "{readable} values of {mask} can still be read after they were masked.",
                    readable=readable,
                    mask=mask.name,
                ),
                expected=say("none."),
                next_step=say(
                    "see what writes them back (a rule, a generated column), and mask that. Nothing was changed."
                ),
            )
    return masked


def tables(masks: Sequence[Mask]) -> list[tuple[str, str]]:
    """The tables that have a masked column."""
    return sorted({(mask.schema, mask.table) for mask in masks})


def _value(cursor: Any, table: sql.Identifier, mask: Mask) -> tuple[sql.Composable, sql.Composable]:
    """What the column becomes, and the condition of a row in which it has not."""
    cursor.execute(_COLUMN, (table.as_string(cursor), mask.column))
    found = cursor.fetchone()
    column = sql.Identifier("masked_row", mask.column)
    if found is None or (mask.how == "hash" and found[1] != "S"):
        what = say("is not there") if found is None else say("is no text, so it has no hash")
        raise OperatorError(
            observed("AMO-2408", "The masked column {mask} {what}.", mask=mask.name, what=what),
            expected=say("columns that the clone has; null or text for a column that is no text."),
            next_step=say(
                "correct rehearsal_masked_columns, and see what the column is called now. Nothing was changed."
            ),
        )
    if mask.how == "null":
        return sql.SQL("NULL"), sql.SQL("{} IS NOT NULL").format(column)
    if mask.how == "text":
        return sql.SQL("%(text)s"), sql.SQL("{}::text <> %(text)s").format(column)
    hashed = sql.SQL(
        "%(prefix)s || pg_catalog.substr(pg_catalog.encode(pg_catalog.sha256("
        "pg_catalog.convert_to(%(salt)s || {}::text, 'UTF8')), 'hex'), 1, 24)"
    ).format(column)
    if found[0] > 4:  # varchar(n): n + 4, https://www.postgresql.org/docs/current/catalog-pg-attribute.html
        hashed = sql.SQL("pg_catalog.left({}, {})").format(hashed, sql.Literal(found[0] - 4))
    beginning = sql.SQL("pg_catalog.left(%(prefix)s, pg_catalog.length({}::text))").format(column)
    return hashed, sql.SQL("NOT pg_catalog.starts_with({}::text, {})").format(column, beginning)


def others(mask: Mask) -> sql.Composable:
    """The condition of the rows that are masked: all but those that ``unless`` names."""
    kept = [
        sql.SQL("({}::text = ANY ({})) IS NOT TRUE").format(
            sql.Identifier("masked_row", name), sql.Placeholder(f"unless_{name}")
        )
        for name in mask.unless
    ]
    return sql.SQL(" AND ").join([sql.SQL("true"), *kept])


def _off(cursor: Any, table: sql.Identifier) -> list[tuple[str, str]]:
    cursor.execute(_TRIGGERS, (table.as_string(cursor),))
    triggers = list(cursor.fetchall())
    for name, _ in triggers:
        cursor.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER {}").format(table, sql.Identifier(name)))
    return triggers


def _on(cursor: Any, table: sql.Identifier, triggers: Sequence[tuple[str, str]]) -> None:
    for name, state in triggers:
        again = sql.SQL("ALTER TABLE {} {} TRIGGER {}")
        cursor.execute(again.format(table, sql.SQL(STATES[state]), sql.Identifier(name)))
