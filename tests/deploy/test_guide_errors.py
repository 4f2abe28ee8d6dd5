"""The twelve places where the deployment guide is wrong, seen on the lab; each would fail if the product believed it.

The guide's own words are run beside the product's: what they print, and what the catalog then shows. Two of the twelve
(the duplicate of a reload, the waiting of writers) are seen in test_stops and tests/database/test_fence.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.deploy.conftest import PLANNED, ROOT, SESSIONS, Lab, make, run_playbook

# These show that the guide is wrong; that the product is right is shown by the others.
pytestmark = pytest.mark.thorough

RULE_INDEX = "idx_inspection_sessions_active_session_per_equipment"


def prisma(lab: Lab, release: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    v = lab.values
    url = (
        f"postgresql://{v['database_user']}:{v['database_password']}@{v['database_host']}:{v['database_port']}"
        f"/{v['database_name']}?schema=aedpics"
    )
    environment = {**os.environ, "PATH": v["path"], "DATABASE_URL": url, "CHECKPOINT_DISABLE": "1"}
    command: list[str | Path] = [release / "node_modules/.bin/prisma", *arguments]
    return subprocess.run(command, cwd=release, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def prepared(lab: Lab) -> tuple[Lab, Path]:
    """The release built, nothing deployed."""
    make("lab-reset")
    run = run_playbook("deploy.yml", "--tags", "prepare")
    assert run.code == 0, run.output
    return lab, Path(f"{lab.values['app_path']}.releases/{lab.values['commit_after']}")


def test_skip_generate_is_no_option_of_migrate_deploy(prepared: tuple[Lab, Path]) -> None:
    lab, release = prepared
    done = prisma(lab, release, "migrate", "deploy", "--skip-generate")
    assert done.returncode != 0
    assert lab.indexes() == {}


def test_the_guides_queries_do_not_count_the_planned_indexes(prepared: tuple[Lab, Path]) -> None:
    lab, _ = prepared
    counted = lab.value(
        "SELECT count(*) FROM pg_indexes WHERE schemaname = 'aedpics' AND indexname LIKE '%inspection%'"
    )
    assert counted >= 20, "none of the planned indexes is there, and the guide's query counts far more than three"
    patterns = lab.rows(
        """SELECT indexname FROM pg_indexes WHERE schemaname = 'aedpics'
              AND (indexname LIKE '%inspection_sessions_active%' OR indexname LIKE '%inspection_schedules_equipment%'
                   OR indexname LIKE '%inspection_schedules_active%')"""
    )
    assert patterns == [("idx_inspection_schedules_equipment",)], "the neighbour that makes the guide's three a four"


def test_the_guides_unique_index_lets_a_duplicate_in(prepared: tuple[Lab, Path]) -> None:
    """One active and one paused session of one equipment: two open sessions, no violation."""
    lab, _ = prepared
    with lab.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(f"DELETE FROM {SESSIONS}")
        cursor.execute(f"CREATE UNIQUE INDEX guide ON {SESSIONS} (equipment_serial, status)")
        insert = f"""INSERT INTO {SESSIONS} (id, equipment_serial, inspector_id, status)
                     SELECT gen_random_uuid(), 'X', (SELECT id FROM aedpics.user_profiles LIMIT 1), %s"""
        for status in ("active", "paused"):
            cursor.execute(insert, (status,))
        cursor.execute("ROLLBACK")


def test_the_guides_clean_up_destroys_history(prepared: tuple[Lab, Path]) -> None:
    """Its rule: of each equipment with a duplicate, only the newest session of any status stays."""
    lab, _ = prepared
    by_guide = {
        row[0]
        for row in lab.rows(
            f"""SELECT id::text FROM (SELECT id, row_number() OVER (PARTITION BY equipment_serial
                                             ORDER BY started_at DESC) AS place FROM {SESSIONS} s
                  WHERE EXISTS (SELECT FROM {SESSIONS} o WHERE o.equipment_serial = s.equipment_serial
                                   AND o.status IN ('active', 'paused')
                                 GROUP BY o.equipment_serial HAVING count(*) > 1)) ranked WHERE place > 1"""
        )
    }
    checked = run_playbook("deploy.yml", "--tags", "cleanup", "--check")
    assert checked.code == 0, checked.output
    plan = max((ROOT / "artifacts/local").glob("*-check/cleanup_plan.json"), key=lambda path: path.stat().st_mtime)
    by_us = {row[0] for row in json.loads(plan.read_text())["rows"]}
    assert len(by_guide) == 57
    assert len(by_us) == 25
    statuses = dict(lab.rows(f"SELECT id::text, status::text FROM {SESSIONS}"))
    assert sum(statuses[id_] == "completed" for id_ in by_guide) >= 30
    assert {statuses[id_] for id_ in by_us} <= {"active", "paused"}


def test_losers_of_a_race_get_500_where_the_violation_is_not_mapped_and_the_check_says_so(
    prepared: tuple[Lab, Path],
) -> None:
    """The indexes under the old code: what the guide calls finished, the race on the canary does not."""
    lab, _ = prepared
    for phase in ("cleanup", "migrate", "verify"):
        run = run_playbook("deploy.yml", "--tags", phase)
        assert run.code == 0, run.output
    assert lab.served() == {lab.values["commit_before"]}

    run = run_playbook("deploy.yml", "--tags", "healthcheck")

    assert run.code != 0
    assert "500" in " ".join(run.failures)
    assert "race" in " ".join(run.failures)


def test_success_is_never_the_guides_sentence(prepared: tuple[Lab, Path]) -> None:
    lab, release = prepared
    done = prisma(lab, release, "migrate", "deploy")
    assert done.returncode == 0
    assert "Your database is now in sync with your schema" not in done.stdout + done.stderr
    assert set(lab.indexes()) == PLANNED


def test_the_guides_rollback_drops_nothing_and_prisma_never_brings_dropped_indexes_back(
    prepared: tuple[Lab, Path],
) -> None:
    lab, release = prepared
    for name in PLANNED:
        lab.rows(f"DROP INDEX IF EXISTS {name}")
    assert set(lab.indexes()) == PLANNED, "without the schema: a notice, exit code 0, and every index is still there"

    definitions = [lab.value("SELECT pg_get_indexdef(%s::regclass)", f"aedpics.{name}") for name in sorted(PLANNED)]
    for name in PLANNED:
        lab.rows(f"DROP INDEX aedpics.{name}")
    assert prisma(lab, release, "migrate", "deploy").returncode == 0
    assert lab.indexes() == {}, "Prisma's history says applied, and the catalog has nothing"

    run = run_playbook("deploy.yml", "--tags", "verify")
    assert run.code != 0
    assert "missing" in " ".join(run.failures)
    for definition in definitions:
        lab.rows(definition)


def status_of(url: str, method: str = "GET", **headers: str) -> int:
    try:
        with urlopen(Request(url, method=method, headers=headers, data=b"{}" if method == "POST" else None)) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def test_health_says_healthy_and_the_expected_values_are_a_list(lab: Lab) -> None:
    with urlopen(lab.values["app_url"] + "/api/health") as answer:
        assert json.load(answer)["status"] == "healthy"
    run = run_playbook("deploy.yml", "--tags", "prepare", "-e", "app_health_values=['ok']")
    assert run.code != 0
    assert "healthy" in " ".join(run.failures)


def test_the_session_api_knows_no_bearer_token(lab: Lab) -> None:
    url = lab.values["app_url"] + "/api/inspections/sessions"
    assert status_of(url, "POST") == 401
    assert status_of(url, "POST", Authorization="Bearer " + lab.values["cron_token"]) == 401


def test_the_old_code_lets_duplicates_in(fresh: Lab) -> None:
    """Why there is a rule at all: simultaneous creations, check-then-insert, no index."""
    run = run_playbook("deploy.yml", "--tags", "healthcheck", "-e", "{healthcheck_checks: [race]}")
    assert run.code != 0
    assert "1 of 1 checks" in " ".join(run.failures)
    assert "race: 16 x POST" in " ".join(run.failures)
