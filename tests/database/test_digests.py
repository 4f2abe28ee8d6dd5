"""The digests that a rehearsal's turns are compared by: equal when nothing differs, and they name what does."""

from __future__ import annotations

import pytest
from at_most_one.findings import Phrase
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Connection
from at_most_one.rehearsal import digests
from at_most_one.verdicts import difference

from tests.support.service_database import GuideExample

SESSIONS = "aedpics.inspection_sessions"
CHANGES = {
    "a row more": (
        "INSERT INTO aedpics.inspection_schedules (aed_data_id, scheduled_for) SELECT id, now() FROM aedpics.aed_data"
        " LIMIT 1",
        "content of aedpics.inspection_schedules: 11 rows then, 12 now",
    ),
    "a value": (
        f"UPDATE {SESSIONS} SET notes = notes || ' ' WHERE id = (SELECT id FROM {SESSIONS} LIMIT 1)",
        f"content of {SESSIONS}: 69 rows then, 69 now",
    ),
    "two values that change places": (
        f"UPDATE {SESSIONS} s SET notes = o.notes FROM {SESSIONS} o WHERE s.notes <> o.notes"
        f" AND o.id IN (SELECT id FROM {SESSIONS} ORDER BY id LIMIT 2)"
        f" AND s.id IN (SELECT id FROM {SESSIONS} ORDER BY id LIMIT 2)",
        f"content of {SESSIONS}: 69 rows then, 69 now",
    ),
    "an index": (f"CREATE INDEX more ON {SESSIONS} (status)", "+ index CREATE INDEX more ON"),
    "a column": (f"ALTER TABLE {SESSIONS} ALTER notes SET DEFAULT 'x'", "+ column inspection_sessions.notes"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_differs_is_named(connection: Connection, plan: Plan, example: GuideExample, change: str) -> None:
    before = digests.take(connection, plan, {}).kept()
    assert digests.differences(before, digests.take(connection, plan, {})) == []

    statement, message = CHANGES[change]
    with connection.cursor() as cursor:
        cursor.execute(statement)
    now = digests.take(connection, plan, {})

    found = digests.differences(before, now)
    assert any(line.startswith(message) for line in found), found
    assert all(isinstance(difference(line), Phrase) for line in found), "each can be read in another language"
    same = "content_sha256" if "index" in change or "column" in change else "schema_sha256"
    assert now.kept()[same] == before[same]
    assert now.kept() != before


def test_the_canary_is_left_out_where_its_columns_are(
    connection: Connection, plan: Plan, example: GuideExample
) -> None:
    canary = {"equipment_serial": "11-0000001"}
    before = digests.take(connection, plan, canary).kept()
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {SESSIONS} (equipment_serial, inspector_id, status)"
            " SELECT '11-0000001', id, 'cancelled' FROM aedpics.user_profiles LIMIT 1"
        )
    assert digests.differences(before, digests.take(connection, plan, canary)) == []
    assert digests.differences(before, digests.take(connection, plan, {})) != []
    assert before["tables"]["aedpics.inspection_schedules"]["rows"] == 11


def test_empty_tables_have_digests_too(connection: Connection, plan: Plan) -> None:
    kept = digests.take(connection, plan, {}).kept()
    assert kept["tables"][SESSIONS]["rows"] == 0
    assert len(kept["content_sha256"]) == 64
