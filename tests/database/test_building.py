"""Which way is chosen, what is refused before anything is built, and what both ways leave in catalog and history."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2.errors
import pytest
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Login, connect

from tests.database.index_tools import (
    ACTIVE,
    CONCURRENTLY,
    DATE,
    in_thread,
    old_snapshot,
    open_session,
    query,
    traces,
    verdict,
    verdicts,
    wait_for,
)
from tests.database.prisma_release import behave, calls, existing, rows
from tests.database.prisma_release import history as history  # fixtures
from tests.database.prisma_release import present as present
from tests.database.prisma_release import release as release
from tests.support.prisma_stand_in import MIGRATION, OURS, RULE

Module = Callable[..., dict[str, Any]]
PHASE = "SELECT pid, phase FROM pg_catalog.pg_stat_progress_create_index WHERE datname = current_database()"


def write_migration(release: Path, text: str) -> None:
    (release / "prisma/migrations" / OURS / "migration.sql").write_text(text)


@pytest.fixture
def filled(login: Login, release: Path) -> None:
    """Enough rows for a forecast that is not zero."""
    query(
        login,
        "INSERT INTO aedpics.inspection_sessions (equipment_serial, inspector_id, status) SELECT 'AED-' || i,"
        " '00000000-0000-4000-a000-000000000001', 'active' FROM generate_series(1, 20000) AS i",
    )


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("limit_ms", "strategy", "calls_of_prisma"), [(60_000, "prisma", 1), (1, "concurrent", 1)], ids=["under", "over"]
)
def test_auto_chooses_by_the_limit(
    login: Login, plan: Plan, release: Path, present: Module, limit_ms: int, strategy: str, calls_of_prisma: int
) -> None:
    before = traces(login)
    predicted = present(strategy="auto", max_write_pause_ms=limit_ms, check=True)
    assert (predicted["changed"], predicted["strategy"], calls(release)) == (True, strategy, 0)
    assert 1 < predicted["write_pause_predicted_ms"] < 60_000
    assert traces(login) == before
    assert all((" CONCURRENTLY " in text) == (strategy == "concurrent") for text in predicted["statements"][:3])
    assert predicted["diff"]["after"].count("CREATE ") == 3

    done = present(strategy="auto", max_write_pause_ms=limit_ms)
    assert (done["changed"], done["strategy"], done["history"]) == (True, strategy, "applied")
    assert done["attempts"] == (1 if strategy == "prisma" else 0)
    assert calls(release) == calls_of_prisma  # after a concurrent build it is asked whether it agrees
    assert done["write_pause_predicted_ms"] > 1
    assert verdicts(login, plan) == ["present"] * 3
    assert [row.applied for row in rows(login, plan)] == [True]

    again = present(strategy="auto", max_write_pause_ms=limit_ms)
    assert (again["changed"], again["strategy"], again["statements"]) == (False, "none", [])


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("check", [True, False])
def test_a_migration_that_does_more_is_never_recorded_instead_of_run(
    login: Login, release: Path, present: Module, check: bool
) -> None:
    write_migration(release, MIGRATION + "ALTER TABLE inspection_sessions ADD COLUMN reviewed boolean;")
    before = traces(login)
    for strategy in ("auto", "concurrent"):
        stopped = present(strategy=strategy, max_write_pause_ms=1, check=check)
        assert stopped["details"]["cause"] == "migration_does_more"
        assert "statement 4 begins with ALTER TABLE" in stopped["seen"]
        assert "split" in stopped["next_step"]
        assert (calls(release), traces(login)) == (0, before)
    assert present(strategy="auto", max_write_pause_ms=60_000)["strategy"] == "prisma"


def test_another_pending_migration_is_not_applied_behind_the_plans_back(
    login: Login, release: Path, present: Module
) -> None:
    (release / "prisma/migrations/20251201_later").mkdir()
    (release / "prisma/migrations/20251201_later/migration.sql").write_text("SELECT 1")
    before = traces(login)
    stopped = present(strategy="concurrent")
    assert "would apply 20251201_later as well" in stopped["seen"]
    assert (calls(release), traces(login)) == (0, before)


@pytest.mark.parametrize(
    ("strategy", "holds"), [("prisma", False), ("concurrent", True)], ids=["not built yet", "holds already"]
)
def test_a_later_migration_that_would_drop_a_planned_index_stops_before_anything(
    login: Login,
    release: Path,
    present: Module,
    run_module: Module,
    login_args: dict[str, Any],
    plan_data: dict[str, Any],
    strategy: str,
    holds: bool,
) -> None:
    """As `prisma migrate dev` writes it, to which the index is unknown."""
    if holds:
        assert present(strategy=strategy)["changed"]
    later = release / "prisma/migrations/20251201_later/migration.sql"
    later.parent.mkdir()
    later.write_text(f'-- DropIndex\nDROP INDEX "{RULE}";\n')
    called, before = calls(release), traces(login)
    reading = {"login": login_args, "plan": plan_data, "release_path": str(release)}

    stopped = present(strategy=strategy)
    refusal = run_module("database_preflight", {**reading, "strategy": strategy})["history"]["refusal"]

    assert stopped["details"]["cause"] == "migration_differs"
    for said in (stopped["seen"], refusal):
        assert f"statement 1 of 20251201_later is about {RULE}" in said
    assert (calls(release), traces(login)) == (called, before)
    watching = {"login": login_args, "plan": plan_data, "release_path": str(release), "keep_days": 0}
    (against,) = run_module("monitor_database_info", watching)["history"]["against"]
    assert against == {"number": 1, "migration": "20251201_later", "name": RULE}
    later.write_text(f"COMMENT ON INDEX {RULE} IS 'the rule'")
    assert run_module("database_preflight", {**reading, "strategy": "prisma"})["history"]["refusal"] == ""


@pytest.mark.parametrize(
    ("strategy", "old", "new", "seen"),
    [
        *(
            (strategy, old, new, seen)
            for strategy in ("prisma", "concurrent")
            for old, new, seen in (
                ("IN ('active', 'paused')", "IN ('active')", f"{RULE} is different (predicate: expected"),
                ("CREATE UNIQUE", "CREATE", f"statement 1: {RULE} is different (unique: expected yes, seen no)"),
                ('"inspection_sessions" (', '"public"."inspection_sessions" (', "seen an index in schema public"),
                ('("aed_data_id", "scheduled_for");', '("scheduled_for", "aed_data_id");', f"{DATE} is different"),
            )
        ),
        ("concurrent", '("aed_data_id", "scheduled_for");', '("aed_data_id", "gone");', '"gone" does not exist'),
        (
            "concurrent",
            '("aed_data_id", "scheduled_for");',
            '("aed_data_id", "scheduled_for") WITH (fillfactor = 70);',
            "storage: expected the default, seen fillfactor=70",
        ),
    ],
)
def test_a_migration_that_builds_something_else_is_found_before_the_build(
    login: Login, release: Path, present: Module, strategy: str, old: str, new: str, seen: str
) -> None:
    assert old in MIGRATION
    write_migration(release, MIGRATION.replace(old, new, 1))
    before = traces(login)
    stopped = present(strategy=strategy)
    assert stopped["details"]["cause"] == "migration_differs"
    assert seen in stopped["seen"]
    assert (calls(release), traces(login)) == (0, before)


def test_other_words_and_comments_in_the_migration_are_no_difference(
    login: Login, plan: Plan, release: Path, present: Module
) -> None:
    write_migration(
        release,
        f"/* one; /* two; */ */ CREATE UNIQUE INDEX IF NOT EXISTS {RULE} ON aedpics.inspection_sessions"
        " USING btree (equipment_serial) WHERE status = ANY (ARRAY['active', 'paused']::session_status[]) -- ;\n;"
        f'CREATE INDEX CONCURRENTLY "{DATE}" ON inspection_schedules (aed_data_id, scheduled_for ASC NULLS LAST);'
        f"CREATE INDEX {ACTIVE} ON inspection_schedules (aed_data_id, scheduled_for)"
        " WHERE inspection_schedules.status NOT IN ('cancelled')",
    )
    assert present(strategy="concurrent")["changed"]
    assert verdicts(login, plan) == ["present"] * 3


def test_auto_leaves_no_migration_to_prisma_that_builds_concurrently(
    login: Login, plan: Plan, release: Path, present: Module
) -> None:
    """PostgreSQL refuses it beside another statement of the same script, after the surplus rows have left."""
    write_migration(release, MIGRATION.replace("INDEX", "INDEX CONCURRENTLY"))
    done = present(strategy="auto", max_write_pause_ms=60_000)
    assert (done.get("strategy"), done.get("attempts")) == ("concurrent", 0), done
    assert verdicts(login, plan) == ["present"] * 3


@pytest.mark.parametrize("strategy", ["auto", "prisma", "concurrent"])
def test_an_interrupted_build_is_gone_on_with(
    login: Login, plan: Plan, release: Path, present: Module, strategy: str
) -> None:
    """One index is there, one is abandoned INVALID, one is missing, and the history knows of nothing."""
    with connect(login) as connection:
        open_session(connection, "AED-1", 2)
    with pytest.raises(psycopg2.errors.UniqueViolation):
        query(login, CONCURRENTLY)
    query(login, "DELETE FROM aedpics.inspection_sessions")
    query(login, f"CREATE INDEX {DATE} ON aedpics.inspection_schedules (aed_data_id, scheduled_for)")
    assert verdicts(login, plan) == ["invalid", "present", "missing"]

    done = present(strategy=strategy, max_write_pause_ms=60_000)

    assert done["strategy"] == "concurrent"
    assert [text.split()[0] for text in done["statements"]] == ["DROP", "CREATE", "CREATE", "INSERT"]
    assert verdicts(login, plan) == ["present"] * 3
    assert [row.applied for row in rows(login, plan)] == [True]


@pytest.mark.parametrize("mode", ["built, then killed before the record", "failed, then built by hand"])
def test_indexes_that_are_there_are_recorded(
    login: Login, plan: Plan, release: Path, history: Module, present: Module, mode: str
) -> None:
    present(strategy="concurrent")
    query(login, "DELETE FROM aedpics._prisma_migrations WHERE migration_name = %s", OURS)
    if mode.startswith("failed"):
        query(
            login, "INSERT INTO aedpics._prisma_migrations (id, checksum, migration_name) VALUES ('x', 'y', %s)", OURS
        )
        assert history()["verdict"] == "failed_with_indexes"
    done = present(strategy="auto")
    assert (done["strategy"], [text.split()[0] for text in done["statements"]]) == ("concurrent", ["INSERT"])
    assert history()["verdict"] == "applied"
    assert [row.applied for row in rows(login, plan)] == ([False, True] if mode.startswith("failed") else [True])


def test_a_prisma_that_does_not_agree_afterwards_is_an_error(
    login: Login, plan: Plan, release: Path, present: Module
) -> None:
    behave(release, "leaks")
    stopped = present(strategy="concurrent")
    assert stopped["details"]["cause"] == "prisma"
    assert stopped["details"]["code"] == "P1000"
    assert "`prisma migrate deploy` ended with exit code 1" in stopped["seen"]
    assert verdicts(login, plan) == ["present"] * 3
    assert [row.applied for row in rows(login, plan)] == [True]


def test_duplicates_stop_the_concurrent_build_before_it_begins(login: Login, release: Path, present: Module) -> None:
    with connect(login) as connection:
        open_session(connection, "AED-1", 2)
    before = traces(login)
    assert present(strategy="concurrent")["details"]["cause"] == "duplicates"
    assert present(strategy="concurrent", check=True)["changed"]
    assert (calls(release), traces(login)) == (0, before)


def test_prismas_lock_is_free_while_the_index_is_built(
    login: Login, plan: Plan, release: Path, present: Module
) -> None:
    """A `prisma migrate` that waited for it would hold a snapshot for which the build would wait in turn."""
    held = "SELECT count(*) FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND objid = 72707369"
    with old_snapshot(login) as reader:
        pid = reader.info.backend_pid
        with in_thread(lambda: present(strategy="concurrent")) as results:
            wait_for(lambda: query(login, PHASE), lambda found: found and found[0][1] == "waiting for old snapshots")
            assert query(login, held) == [(0,)]
            reader.rollback()
    (done,) = results
    assert done["changed"], done
    assert [session["pid"] for session in done["stalled_by"]] == [pid]
    assert verdicts(login, plan) == ["present"] * 3


def test_a_build_in_progress_elsewhere_is_neither_joined_nor_dropped(
    login: Login,
    plan: Plan,
    release: Path,
    present: Module,
    run_module: Module,
    login_args: dict[str, Any],
    plan_data: dict[str, Any],
) -> None:
    with old_snapshot(login) as reader:
        with in_thread(lambda: query(login, CONCURRENTLY)) as results:
            ((pid, _),) = wait_for(
                lambda: query(login, PHASE), lambda found: found and found[0][1] == "waiting for old snapshots"
            )
            before = traces(login)
            for stopped in (
                present(strategy="concurrent"),
                present(strategy="prisma"),
                run_module("index_set", {"login": login_args, "plan": plan_data, "state": "absent"}),
            ):
                assert (stopped["details"]["cause"], stopped["details"]["pid"]) == ("building", pid)
                assert f"SELECT pg_cancel_backend({pid})" in stopped["next_step"]
                assert (calls(release), traces(login)) == (0, before)
            reader.rollback()
        assert results == [[]]
    assert verdict(login, plan).verdict == "present"
    assert existing(login, plan) == (RULE,)
