"""The backup before the first removal: one moment, every planned table, private, read again, the newest kept."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan
from at_most_one.postgres import client_programs
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.preflight import backup
from at_most_one.preflight.backup import Wanted

from tests.database.index_tools import build as build  # fixtures
from tests.database.index_tools import run_sql as run_sql
from tests.support.postgres import Server
from tests.support.service_database import GuideExample

pytestmark = pytest.mark.pg_dump

SESSIONS = "aedpics.inspection_sessions"


@pytest.fixture
def wanted(tmp_path: Path, plan: Plan, server: Server) -> Wanted:
    return Wanted(tmp_path / "backups", f"{plan.id}-20251110T053000Z-aaaaaa.dump", 2, str(server.binaries))


def _make(login: Login, plan: Plan, wanted: Wanted, *, check_mode: bool = False) -> backup.Made:
    return backup.make(login, plan, wanted, lock_timeout_ms=3_000, check_mode=check_mode)


def test_every_planned_table_is_in_it_with_every_row(
    login: Login, plan: Plan, wanted: Wanted, server: Server, connection: Connection, example: GuideExample
) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT t::text FROM {SESSIONS} t ORDER BY 1")
        before = cursor.fetchall()
    connection.commit()

    made = _make(login, plan, wanted)

    assert made.needed
    assert made.tables == {SESSIONS: 69, "aedpics.inspection_schedules": 11}
    path = Path(made.path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == [wanted.name]

    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {SESSIONS}")
    connection.commit()
    with client_programs.access(login) as access:
        command = [str(server.binaries / "pg_restore"), "--data-only", "--table=inspection_sessions"]
        client_programs.run([*command, f"--dbname={login.dbname}", str(path)], access, [], "none")
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT t::text FROM {SESSIONS} t ORDER BY 1")
        assert cursor.fetchall() == before, "what it restores is what there was"


def test_it_is_of_one_moment_although_the_service_goes_on(
    login: Login, plan: Plan, wanted: Wanted, example: GuideExample, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = client_programs.run

    def while_it_is_dumped(arguments: Any, *others: Any) -> str:
        if "pg_dump" in arguments[0]:
            with connect(login) as connection, connection.cursor() as cursor:
                cursor.execute(f"DELETE FROM {SESSIONS} WHERE status = 'completed'")
        return run(arguments, *others)

    monkeypatch.setattr(client_programs, "run", while_it_is_dumped)
    assert _make(login, plan, wanted).tables[SESSIONS] == 69


def test_the_newest_are_kept_and_other_plans_are_left_alone(
    login: Login, plan: Plan, wanted: Wanted, example: GuideExample
) -> None:
    wanted.directory.mkdir()
    others = {f"{name}-20240101T000000Z-aaaaaa.dump" for name in ("another-plan", f"{plan.id}-2", f"{plan.id}@tenant")}
    others.add(f".{plan.id}-2-20251101T000000Z-aaaaaa.dump.partial")  # of a run that is at work
    for name in others:
        (wanted.directory / name).touch()
    (wanted.directory / f".{plan.id}-20251101T000000Z-aaaaaa.dump.partial").touch()  # of a run that was killed
    names = [f"{plan.id}-2025111{day}T000000Z-aaaaaa.dump" for day in range(4)]
    pruned = [_make(login, plan, replace(wanted, name=name)).pruned for name in names]

    assert pruned == [(), (), (names[0],), (names[1],)]
    assert {entry.name for entry in wanted.directory.iterdir()} == {*others, *names[2:]}


def test_none_is_made_when_no_row_can_leave(
    login: Login, plan: Plan, wanted: Wanted, build: Callable[..., None]
) -> None:
    build()
    assert not _make(login, plan, wanted).needed
    assert not wanted.directory.exists()


def test_check_mode_looks_and_writes_nothing(login: Login, plan: Plan, wanted: Wanted, example: GuideExample) -> None:
    made = _make(login, plan, wanted, check_mode=True)
    assert (made.needed, made.path, made.tables) == (True, str(wanted.directory / wanted.name), {})
    assert made.bytes > 0
    assert not wanted.directory.exists()


@pytest.mark.parametrize("check_mode", [True, False])
def test_a_full_disk_stops_it_first(
    login: Login, plan: Plan, wanted: Wanted, example: GuideExample, monkeypatch: pytest.MonkeyPatch, check_mode: bool
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1_000))
    with pytest.raises(OperatorError, match="MB free"):
        _make(login, plan, wanted, check_mode=check_mode)
    assert not wanted.directory.exists()


def test_a_dump_that_fails_is_not_kept_and_says_why_without_the_password(
    login: Login, plan: Plan, wanted: Wanted, example: GuideExample, tmp_path: Path
) -> None:
    broken, words = tmp_path / "bin", tmp_path / "words"
    broken.mkdir()
    words.write_text(f"pg_dump: error: no entry for {login.password} in the list\n")
    for name in ("pg_dump", "pg_restore"):
        (broken / name).write_text(f"#!/bin/sh\ncat {words} >&2\nexit 3\n")
        (broken / name).chmod(0o755)
    with pytest.raises(OperatorError) as refused:
        _make(login, plan, replace(wanted, search_path=str(broken)))
    assert "pg_dump ended with exit code 3: pg_dump: error: no entry for *** in the list" in refused.value.seen
    assert login.password not in str(refused.value)
    assert list(wanted.directory.iterdir()) == []


def test_a_dump_that_lost_rows_does_not_count(
    login: Login, plan: Plan, wanted: Wanted, server: Server, example: GuideExample, tmp_path: Path
) -> None:
    """A pg_restore that shows fewer rows, as of a file that was cut."""
    short = tmp_path / "bin"
    short.mkdir()
    (short / "pg_dump").symlink_to(server.binaries / "pg_dump")
    real = server.binaries / "pg_restore"
    (short / "pg_restore").write_text(f'#!/bin/sh\n"{real}" "$@" | grep -v completed\n')
    (short / "pg_restore").chmod(0o755)
    with pytest.raises(OperatorError, match="does not hold what the tables held"):
        _make(login, plan, replace(wanted, search_path=str(short)))
    assert list(wanted.directory.iterdir()) == []


def test_the_password_is_in_no_process_list(
    login: Login, plan: Plan, wanted: Wanted, server: Server, example: GuideExample, tmp_path: Path
) -> None:
    """pg_dump's own arguments and environment, as it sees them."""
    spying, seen = tmp_path / "bin", tmp_path / "seen"
    spying.mkdir()
    for name in ("pg_dump", "pg_restore"):
        (spying / name).write_text(f'#!/bin/sh\n(env; echo "$@") >> {seen}\nexec "{server.binaries / name}" "$@"\n')
        (spying / name).chmod(0o755)
    _make(login, plan, replace(wanted, search_path=str(spying)))

    text = seen.read_text()
    assert "PGPASSFILE=/proc/self/fd/" in text, "nor on a disk, where it could outlive a killed run"
    assert login.password not in text


def test_the_module_says_what_it_made(
    login_args: dict[str, Any],
    plan_data: dict[str, Any],
    example: GuideExample,
    server: Server,
    tmp_path: Path,
    run_module: Callable[..., dict[str, Any]],
) -> None:
    args = {"login": login_args, "plan": plan_data, "directory": str(tmp_path / "b"), "run_id": "20251110T053000Z-a"}
    args["environment_path"] = str(server.binaries)
    result = run_module("table_backup", args)
    assert not result["changed"]
    path = result["backup"]["path"]
    listed = _restored(server.binaries / "pg_restore", "--list", path)
    assert listed.count(" TABLE DATA ") == len(result["backup"]["tables"]) == 2
    shown = _restored(server.binaries / "pg_restore", "--data-only", "--table=inspection_sessions", "--file=-", path)
    assert f"COPY {SESSIONS} " in shown, "as docs/rehearse.md says: to look at, before anything goes anywhere"
    assert "inspection_schedules" not in shown
    assert os.listdir(tmp_path / "b") == [f"{plan_data['id']}-20251110T053000Z-a.dump"]


def test_no_backup_is_made_beside_a_prisma_that_takes_its_database_from_elsewhere(
    login_args: dict[str, Any],
    plan_data: dict[str, Any],
    server: Server,
    tmp_path: Path,
    run_module: Callable[..., dict[str, Any]],
) -> None:
    executable = tmp_path / "node_modules/.bin/prisma"
    executable.parent.mkdir(parents=True)
    executable.write_text("#!/bin/sh\necho 'Database schema is up to date!'\n")
    executable.chmod(0o755)
    args = {"login": login_args, "plan": plan_data, "directory": str(tmp_path / "b"), "run_id": "20251110T053000Z-a"}
    args |= {"environment_path": str(server.binaries), "release_path": str(tmp_path)}
    failed = run_module("table_backup", args)
    assert "has not connected to the address in DATABASE_URL" in failed["seen"]
    assert not (tmp_path / "b").exists()


def _restored(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
