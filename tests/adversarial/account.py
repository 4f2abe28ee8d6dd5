"""The account of one trial: what was committed, and whether every bit of it is still somewhere.

Writers enter what they have committed, nobody else does. ``version`` grows with every update under the row's own lock,
so of all images of one row the last committed one is known, whoever wrote it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from at_most_one.plan import Plan
from at_most_one.postgres.connection import Connection
from psycopg2 import sql

Image = dict[str, str | None]  # a row: the text of each column


@dataclass
class Ledger:
    """Of one writer, or of all of them together: images by id and version, and the ids deleted on purpose."""

    images: dict[str, dict[int, Image]] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)

    def committed(self, image: Image) -> None:
        self.images.setdefault(str(image["id"]), {})[int(image["version"] or 0)] = image

    def include(self, other: Ledger) -> None:
        for identifier, images in other.images.items():
            self.images.setdefault(identifier, {}).update(images)
        self.deleted |= other.deleted

    def last(self, identifier: str) -> Image:
        images = self.images[identifier]
        return images[max(images)]


def differences(connection: Connection, plan: Plan, ledger: Ledger) -> list[str]:
    """Every way in which table and archive together are not what the ledger says; empty when nothing was lost."""
    names, table = _table(connection, plan)
    archived, faults = _archive(connection, plan)
    expected: dict[str, Image] = {}
    for identifier in set(ledger.images) - ledger.deleted:
        expected[identifier] = ledger.last(identifier)
    if plan.surplus.action == "delete":
        twice = sorted(set(table) & set(archived))
        faults += [f"{len(twice)} rows are in the table and in the archive: {twice[:3]}"] if twice else []
        found = {**archived, **table}
    else:
        found = {**table, **{key: image for key, image in archived.items() if _untouched(plan, image, table, key)}}
    lost, strange = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    faults += [f"{len(lost)} committed rows are nowhere: {lost[:3]}"] if lost else []
    faults += [f"{len(strange)} rows come from nobody: {strange[:3]}"] if strange else []
    changed = [key for key in set(expected) & set(found) if expected[key] != found[key]]
    faults += [f"{len(changed)} rows differ from what was committed last: {sorted(changed)[:3]}"] if changed else []
    if not faults and _digest(expected) != _digest(found):
        faults.append("the hash over all rows differs")
    if set(names) != set(next(iter(expected.values()), dict.fromkeys(names))):
        faults.append("the account does not look at every column")
    return faults


def _untouched(plan: Plan, archived: Image, table: Mapping[str, Image], identifier: str) -> bool:
    """The row stands in the table exactly as the clean-up updated it: then the archive has what it was before."""
    return table.get(identifier) == {**archived, **plan.surplus.values}


def _table(connection: Connection, plan: Plan) -> tuple[list[str], dict[str, Image]]:
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT attname::text FROM pg_catalog.pg_attribute WHERE attrelid = pg_catalog.to_regclass(%s)"
            " AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            (sql.Identifier(plan.schema, plan.table).as_string(cursor),),
        )
        names = [name for (name,) in cursor.fetchall()]
        texts = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in names)
        cursor.execute(sql.SQL("SELECT {} FROM {}").format(texts, sql.Identifier(plan.schema, plan.table)))
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return names, {row["id"]: row for row in rows}


def _archive(connection: Connection, plan: Plan) -> tuple[dict[str, Image], list[str]]:
    """The last archived image of each row; its hash is judged by PostgreSQL's own rendering."""
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_catalog.to_regclass('at_most_one.archived_row') IS NULL")
        if cursor.fetchone() == (True,):
            return {}, []
        cursor.execute(
            "SELECT \"row\", row_sha256 = encode(sha256(convert_to(\"row\"::text, 'UTF8')), 'hex'), primary_key, keeper"
            " FROM at_most_one.archived_row ORDER BY id"
        )
        archived: dict[str, Image] = {}
        faults: list[str] = []
        for row, hash_is_right, primary_key, keeper in cursor.fetchall():
            if not hash_is_right or primary_key["id"] != row["id"] or keeper == primary_key:
                faults.append(f"the archive's entry of {row['id']} contradicts itself")
            if plan.surplus.action == "delete" and row["id"] in archived:
                faults.append(f"{row['id']} was archived twice")
            archived[row["id"]] = row
    return archived, faults


def _digest(rows: Mapping[str, Any]) -> str:
    lines = sorted(json.dumps(row, sort_keys=True, ensure_ascii=False) for row in rows.values())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
