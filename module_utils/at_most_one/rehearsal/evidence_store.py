"""The rehearsals of an environment, in its journal: the same sealed documents that travel as files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..errors import OperatorError
from ..findings import observed, say
from ..postgres import own_schema
from ..postgres.connection import Connection

_KEEP = """
INSERT INTO at_most_one.rehearsal (rehearsal_id, plan_id, plan_sha256, commit_after, outcome, evidence)
VALUES (%s, %s, %s, %s, %s, %s)
ON CONFLICT (rehearsal_id) DO UPDATE
SET outcome = excluded.outcome, evidence = excluded.evidence, kept_at = pg_catalog.clock_timestamp()
"""
_READ = "SELECT evidence FROM at_most_one.rehearsal WHERE rehearsal_id = %s"


def read(connection: Connection, rehearsal_id: str) -> dict[str, Any]:
    """The document of a rehearsal that has begun. Raises OperatorError where the journal does not have it."""
    found = None
    if own_schema.exists(connection):
        with connection.cursor() as cursor:
            cursor.execute(_READ, (rehearsal_id,))
            found = cursor.fetchone()
    if found is None:
        raise OperatorError(
            observed("AMO-2405", "The rehearsal {rehearsal_id} is not in the journal.", rehearsal_id=rehearsal_id),
            expected=say("the journal in which it has begun; a server that has moved back lacks it."),
            next_step=say(
                "find out what happened to the database, then rehearse again: ansible-playbook "
                "rehearse.yml -l <environment>"
            ),
        )
    return dict(found[0])


def keep(connection: Connection, document: Mapping[str, Any]) -> None:
    """Keep a sealed document, in the caller's transaction; a later one of the same rehearsal takes its place."""
    own_schema.ensure(connection)
    plan = document["plan"]
    with connection.cursor() as cursor:
        cursor.execute(
            _KEEP,
            (
                *(document["rehearsal_id"], plan["id"], plan["sha256"], document["commit"]["after"]),
                *(document["outcome"], json.dumps(document, ensure_ascii=False)),
            ),
        )
