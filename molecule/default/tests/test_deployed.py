"""What a deployment leaves, read on the host itself: processes, link, files; and in the catalog."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

PLANNED = {
    "idx_inspection_sessions_active_session_per_equipment",
    "idx_inspection_schedules_equipment_date",
    "idx_inspection_schedules_active",
}


@pytest.fixture(scope="module")
def lab() -> dict[str, Any]:
    return json.loads((Path(__file__).parents[3] / ".lab/lab.json").read_text())


def query(host: Any, lab: dict[str, Any], sql: str) -> str:
    login = f"host={lab['database_host']} port={lab['database_port']} dbname={lab['database_name']}"
    command = host.run(
        "PGPASSWORD=%s %s/psql -XAt %s -c %s",
        lab["database_password"],
        lab["postgres_bin"],
        f"{login} user={lab['database_user']}",
        sql,
    )
    assert command.rc == 0, command.stderr
    return command.stdout.strip()


def test_exactly_the_planned_indexes_are_valid_and_ready(host: Any, lab: dict[str, Any]) -> None:
    family = "sessions_active|schedules_equipment_date|schedules_active"
    rows = query(
        host,
        lab,
        "SELECT c.relname, i.indisvalid AND i.indisready AND i.indislive FROM pg_index i"
        " JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        f" WHERE n.nspname = 'aedpics' AND c.relname ~ '^idx_inspection_({family})'",
    )
    assert dict(row.split("|") for row in rows.splitlines()) == dict.fromkeys(PLANNED, "t")


def test_surplus_rows_are_archived_and_history_is_whole(host: Any, lab: dict[str, Any]) -> None:
    open_, completed = "status IN ('active', 'paused')", "status = 'completed'"
    table = "aedpics.inspection_sessions"
    assert query(host, lab, "SELECT count(*) FROM at_most_one.archived_row WHERE restored_at IS NULL") == "25"
    assert query(host, lab, f"SELECT count(*) - count(DISTINCT equipment_serial) FROM {table} WHERE {open_}") == "0"
    assert int(query(host, lab, f"SELECT count(*) FROM {table} WHERE {completed}")) >= 32
    assert query(host, lab, "SELECT count(*) FROM pg_class WHERE relname LIKE 'at\\_most\\_one\\_fence%'") == "0"


def test_the_path_is_a_link_to_the_wanted_release(host: Any, lab: dict[str, Any]) -> None:
    path = host.file(lab["app_path"])
    assert path.is_symlink
    assert path.linked_to == f"{lab['app_path']}.releases/{lab['commit_after']}"
    assert host.file(f"{lab['app_path']}.releases/{lab['commit_before']}/.next/BUILD_ID").is_file
    assert host.file(f"{lab['app_path']}.releases/shared/.env.production").mode == 0o600


def test_every_worker_runs_in_the_wanted_release(host: Any, lab: dict[str, Any]) -> None:
    listed = host.run("PATH=%s PM2_HOME=%s %s jlist", lab["path"], lab["pm2_home"], lab["pm2_bin"]).stdout
    workers = json.loads(listed[listed.index("[{") :])
    assert len(workers) == 2
    for worker in workers:
        assert worker["pm2_env"]["status"] == "online"
        assert host.file(f"/proc/{worker['pid']}/cwd").linked_to.endswith(lab["commit_after"])


def test_the_service_answers_with_the_wanted_build(lab: dict[str, Any]) -> None:
    """No header names the build: the page does, with the id of the build that it came from."""
    with urlopen(f"{lab['app_url']}/api/health", timeout=10) as answer:
        assert json.load(answer)["status"] == "healthy"
    for _ in range(8):
        with urlopen(f"{lab['app_url']}/", timeout=10) as answer:
            assert f'\\"b\\":\\"{lab["commit_after"]}\\"' in answer.read().decode()
