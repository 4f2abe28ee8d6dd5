"""A release whose ``node_modules/.bin/prisma`` stands in for Prisma's CLI, and the modules over it.

What is judged is the catalog, which is real.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from at_most_one.indexes import verification
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.prisma import migration_history

from tests.support.prisma_stand_in import EARLIER, HISTORY, MIGRATION, OURS, STAND_IN


@pytest.fixture
def release(login: Login, tmp_path: Path) -> Path:
    """A release with two migrations, the first of which the database's history has as applied."""
    for name, content in ((EARLIER, "-- the schema"), (OURS, MIGRATION)):
        (tmp_path / "prisma/migrations" / name).mkdir(parents=True)
        (tmp_path / "prisma/migrations" / name / "migration.sql").write_text(content)
    binaries = tmp_path / "node_modules/.bin"
    binaries.mkdir(parents=True)
    (binaries / "prisma").write_text(STAND_IN.format(python=sys.executable, ours=OURS))
    (binaries / "prisma").chmod(0o755)
    behave(tmp_path, "applies")
    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute(HISTORY)
        cursor.execute(
            "INSERT INTO aedpics._prisma_migrations (id, checksum, migration_name, finished_at, applied_steps_count)"
            " VALUES ('earlier', 'sha', %s, now(), 1)",
            (EARLIER,),
        )
        cursor.execute(
            "INSERT INTO aedpics.user_profiles VALUES ('00000000-0000-4000-a000-000000000001', 'a@example.test', 'A')"
        )
    return tmp_path


def behave(release: Path, mode: str) -> None:
    (release / "mode").write_text(mode)


def calls(release: Path) -> int:
    """How often Prisma was asked to deploy."""
    return (release / "calls").read_text().count("x") if (release / "calls").exists() else 0


def open_session(connection: Connection, serial: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO aedpics.inspection_sessions (equipment_serial, inspector_id)"
            " VALUES (%s, '00000000-0000-4000-a000-000000000001')",
            (serial,),
        )


@pytest.fixture
def present(
    run_module: Callable[..., dict[str, Any]], login_args: dict[str, Any], plan_data: dict[str, Any], release: Path
) -> Callable[..., dict[str, Any]]:
    """Runs index_set with state=present over the release."""

    def run(*, check: bool = False, **options: Any) -> dict[str, Any]:
        args = {"login": login_args, "plan": plan_data, "state": "present", "release_path": str(release)}
        return run_module("index_set", {**args, **options}, check=check, diff=True)

    return run


@pytest.fixture
def history(
    run_module: Callable[..., dict[str, Any]], login_args: dict[str, Any], plan_data: dict[str, Any], release: Path
) -> Callable[..., dict[str, Any]]:
    """Runs prisma_history_info with the release or, with a state, prisma_history."""

    def run(state: str = "", *, check: bool = False, **options: Any) -> dict[str, Any]:
        args = {"login": login_args, "plan": plan_data, **options}
        if state:
            return run_module("prisma_history", {**args, "state": state}, check=check, diff=True)
        return run_module("prisma_history_info", {**args, "release_path": str(release)}, check=check, diff=True)

    return run


def rows(login: Login, plan: Plan) -> list[migration_history.Row]:
    with connect(login) as connection:
        return [
            row for row in migration_history.read_history(connection, plan.schema) or () if row.migration_name == OURS
        ]


def existing(login: Login, plan: Plan) -> tuple[str, ...]:
    with connect(login) as connection:
        return verification.inspect(connection, plan).existing
