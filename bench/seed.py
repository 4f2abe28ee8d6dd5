"""The service at a size: the lab application's own migrations, filled with sessions and schedules.

One row in eight is surplus. Of 24 sessions 20 are completed and 4 are open, on one equipment: 3 of them are surplus.
Every such equipment has a neighbour without an open session, where the writers may open one.
"""

from __future__ import annotations

import contextlib

import yaml
from at_most_one.plan import Plan, parse
from at_most_one.postgres.connection import Login

from .server import ROOT, Server, superuser

PLAN_FILE = ROOT / "plans/one-active-inspection-session.yml"
PLAN: Plan = parse(yaml.safe_load(PLAN_FILE.read_text(encoding="utf-8")))
MIGRATION = (ROOT / f"lab/app-after/prisma/migrations/{PLAN.migration}/migration.sql").read_text(encoding="utf-8")
INSPECTORS = 50
ROWS_PER_SURPLUS = 8

_INSPECTOR = "('00000000-0000-4000-a000-' || lpad((1 + {n} %% %(inspectors)s)::text, 12, '0'))::uuid"
_PEOPLE = f"""
INSERT INTO aedpics.user_profiles (id, email, full_name, password_hash)
SELECT {_INSPECTOR.format(n="n")}, 'inspector' || n || '@example.test', '점검원 ' || n, 'none'
FROM generate_series(0, %(inspectors)s - 1) AS n"""
_EQUIPMENT = """
INSERT INTO aedpics.aed_data (equipment_serial, installation_institution)
SELECT '11-' || lpad(n::text, 7, '0'), '기관 ' || n FROM generate_series(0, 2 * %(groups)s - 1) AS n"""
# Sessions come in the order of time, as they do in life: the rows of one equipment lie far apart.
_SESSIONS = f"""
INSERT INTO aedpics.inspection_sessions
    (equipment_serial, inspector_id, status, current_step, started_at, completed_at, step_data, notes)
SELECT '11-' || lpad((2 * g + CASE WHEN turn < 10 THEN 1 ELSE 0 END)::text, 7, '0'),
    {_INSPECTOR.format(n="(g + turn)")},
    (CASE WHEN turn < 20 THEN 'completed' WHEN turn %% 2 = 0 THEN 'active' ELSE 'paused' END)::aedpics.session_status,
    turn %% 6, at, CASE WHEN turn < 20 THEN at + interval '20 minutes' END,
    jsonb_build_object('step', turn %% 6, 'result', '정상', 'ratio', 0.1), '점검 ' || turn
FROM (
    SELECT turn, g FROM generate_series(0, 23) AS turn, generate_series(0, %(groups)s - 1) AS g ORDER BY turn, g
) AS numbers,
    LATERAL (
        SELECT timestamptz '2025-01-01 09:00+09' + turn * interval '13 days' + (g %% 86400) * interval '1 s'
    ) AS t (at)"""
_SCHEDULES = """
INSERT INTO aedpics.inspection_schedules (aed_data_id, scheduled_for, status)
SELECT id, timestamptz '2025-06-01 09:00+09' + turn * interval '30 days' + (id %% 86400) * interval '1 s',
    (ARRAY['completed', 'completed', 'completed', 'cancelled', 'scheduled', 'scheduled'])[turn]::aedpics.schedule_status
FROM generate_series(1, 6) AS turn, aedpics.aed_data ORDER BY turn, id"""

# Built after the rows: faster, and as compact as a REINDEX leaves them.
_PRIMARY_KEYS = ("inspection_sessions", "inspection_schedules")
_INDEXES = """
SELECT x.indexrelid::regclass::text, pg_get_indexdef(x.indexrelid) FROM pg_index AS x
JOIN pg_class AS c ON c.oid = x.indrelid
WHERE c.relnamespace = 'aedpics'::regnamespace
    AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = x.indexrelid)"""


def seed(server: Server, name: str, surplus: int, *, schedules: bool = True) -> Login:
    """A database with ``surplus`` surplus rows (a multiple of 3) among eight times as many; nobody is connected."""
    login = server.create(name)
    with contextlib.closing(superuser(login)) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA aedpics")
        for migration in sorted((ROOT / "lab/app/prisma/migrations").glob("*/migration.sql")):
            cursor.execute(migration.read_text(encoding="utf-8"))
        cursor.execute(_INDEXES)
        indexes = cursor.fetchall()
        for index, _ in indexes:
            cursor.execute(f"DROP INDEX {index}")
        for table in _PRIMARY_KEYS:
            cursor.execute(f"ALTER TABLE aedpics.{table} DROP CONSTRAINT {table}_pkey")
        cursor.execute("SET session_replication_role = replica")  # the seed's references are right by construction
        values = {"groups": groups(surplus), "inspectors": INSPECTORS}
        for statement in (_PEOPLE, _EQUIPMENT, _SESSIONS, *([_SCHEDULES] if schedules else [])):
            cursor.execute(statement, values)
        for table in _PRIMARY_KEYS:
            cursor.execute(f"ALTER TABLE aedpics.{table} ADD CONSTRAINT {table}_pkey PRIMARY KEY (id)")
        for _, definition in indexes:
            cursor.execute(definition)
        cursor.execute("VACUUM (FREEZE, ANALYZE)")
    return login


def groups(surplus: int) -> int:
    """How many equipments have open sessions too many."""
    return max(round(surplus / 3), 1)
