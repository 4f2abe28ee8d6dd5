"""The service's own migration: SET search_path, then DROP INDEX IF EXISTS and CREATE INDEX for each, by all strategies.

The stand-in runs a script whole; tests/database/test_real_prisma.py has Prisma's adapter, which runs its statements one
by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from at_most_one.migration import readiness
from at_most_one.migration.build import Options
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Connection, Login, connect

from tests.database.index_tools import ACTIVE, DATE, RULE, in_thread, query, traces, verdicts, wait_for
from tests.database.prisma_release import behave, calls, open_session, rows
from tests.database.prisma_release import history as history  # fixtures
from tests.database.prisma_release import present as present
from tests.database.prisma_release import release as release
from tests.support.prisma_stand_in import OURS, SHAPED

Module = Callable[..., dict[str, Any]]
STRATEGIES = ("prisma", "concurrent", "auto")
CREATE = f"CREATE INDEX {DATE} ON aedpics.inspection_schedules (aed_data_id, scheduled_for)"
OIDS = "SELECT oid FROM pg_catalog.pg_class WHERE relname ~ '^idx_inspection_sch.*(date|active)$' ORDER BY relname"


@pytest.fixture
def foreseen(login: Login, plan: Plan, release: Path) -> Callable[..., readiness.Readiness]:
    """What prepare asks, by a strategy."""

    def read(strategy: str, max_write_pause_ms: int = 500) -> readiness.Readiness:
        timeouts: dict[str, Any] = {"lock_timeout_ms": 3_000, "statement_timeout_ms": 60_000}
        options = Options(strategy, max_write_pause_ms, 1, 0, 0, **timeouts)
        return readiness.read(login, plan, release, options, **timeouts)

    return read


@pytest.fixture
def shaped(release: Path) -> Callable[[str], None]:
    def write(text: str) -> None:
        (release / "prisma/migrations" / OURS / "migration.sql").write_text(text)

    write(SHAPED)
    return write


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_builds(
    login: Login, plan: Plan, shaped: Callable[[str], None], history: Module, present: Module, strategy: str
) -> None:
    done = present(strategy=strategy, max_write_pause_ms=0 if strategy == "auto" else 60_000)
    assert (done.get("changed"), done.get("history")) == (True, "applied"), done
    assert verdicts(login, plan) == ["present"] * 3
    assert (history()["verdict"], [row.applied for row in rows(login, plan)]) == ("applied", [True])
    assert not present(strategy=strategy)["changed"]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("there", [(), (RULE, DATE, ACTIVE)], ids=["one is there", "all are there"])
def test_a_built_index_is_kept_and_never_dropped(
    login: Login,
    plan: Plan,
    release: Path,
    shaped: Callable[[str], None],
    history: Module,
    present: Module,
    strategy: str,
    there: tuple[str, ...],
) -> None:
    """The same relation afterwards: Prisma would drop it and build it again while everybody waits."""
    if there:
        present(strategy="concurrent")
        query(login, "DELETE FROM aedpics._prisma_migrations WHERE migration_name = %s", OURS)
    else:
        query(login, CREATE)
    before = query(login, OIDS)
    done = present(strategy=strategy)
    assert (done.get("strategy"), done.get("history")) == ("concurrent", "applied"), done
    assert set(before) <= set(query(login, OIDS))
    assert verdicts(login, plan) == ["present"] * 3
    assert history()["verdict"] == "applied"


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("made", "seen"),
    [
        (f"CREATE INDEX {DATE} ON aedpics.inspection_schedules (aed_data_id)", f"{DATE} is different (columns"),
        (f"CREATE INDEX {DATE} ON aedpics.inspection_sessions (inspector_id)", f"{DATE} is different (table"),
        (f"CREATE TABLE aedpics.{DATE} ()", f"{DATE} is different (kind"),
    ],
)
def test_what_else_carries_the_name_is_refused_and_kept(
    login: Login, release: Path, shaped: Callable[[str], None], present: Module, strategy: str, made: str, seen: str
) -> None:
    query(login, made)
    before = traces(login)
    stopped = present(strategy=strategy)
    assert seen in stopped["seen"]
    assert (calls(release), traces(login)) == (0, before)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_drop_that_would_find_it_in_another_schema_is_refused(
    login: Login, release: Path, shaped: Callable[[str], None], present: Module, strategy: str
) -> None:
    """With the plan's own schema alone in the search_path, a namesake elsewhere is nobody's business."""
    query(login, f"CREATE TABLE public.other (a integer); CREATE INDEX {DATE} ON public.other (a)")
    shaped(SHAPED.replace("= aedpics;", "= aedpics, public;"))
    before = traces(login)
    stopped = present(strategy=strategy)
    assert f"statement 4 would drop public.{DATE}" in stopped["seen"]
    assert (calls(release), traces(login)) == (0, before)
    shaped(SHAPED)
    assert present(strategy=strategy)["changed"]
    assert query(login, f"SELECT to_regclass('public.{DATE}') IS NOT NULL") == [(True,)]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("path", ["public", "public, aedpics", "nowhere"])
def test_a_search_path_that_leads_elsewhere_is_refused(
    login: Login, release: Path, shaped: Callable[[str], None], present: Module, strategy: str, path: str
) -> None:
    """A table of the same name in public: Prisma would build the index there."""
    query(login, "CREATE TABLE public.inspection_sessions (LIKE aedpics.inspection_sessions)")
    shaped(SHAPED.replace("= aedpics;", f"= {path};"))
    before = traces(login)
    stopped = present(strategy=strategy)
    assert path in stopped["seen"] or "an index in schema public" in stopped["seen"]
    assert stopped["details"]["cause"] in ("migration_does_more", "migration_differs")
    assert (calls(release), traces(login)) == (0, before)


@pytest.mark.parametrize("path", ["aedpics, public", '"aedpics"', "'aedpics', \"$user\"", "aedpics, nowhere"])
def test_a_search_path_that_begins_with_the_plans_schema_is_understood(
    login: Login, plan: Plan, shaped: Callable[[str], None], present: Module, path: str
) -> None:
    shaped(SHAPED.replace("SET search_path = aedpics;", f"SET SESSION search_path TO {path};"))
    assert present(strategy="concurrent")["changed"]
    assert verdicts(login, plan) == ["present"] * 3


@pytest.mark.parametrize("strategy", ["prisma", "concurrent"])
def test_comments_and_a_transaction_are_carried_out(
    login: Login, plan: Plan, shaped: Callable[[str], None], present: Module, strategy: str
) -> None:
    more = f"COMMENT ON INDEX {RULE} IS 'first'; COMMENT ON INDEX aedpics.{RULE} IS 'at most one; 100 % of it''s';"
    shaped(f"BEGIN; {SHAPED} {more} COMMIT;".replace("UNIQUE INDEX", "UNIQUE INDEX IF NOT EXISTS"))
    done = present(strategy=strategy)
    assert done["changed"], done
    said = f"SELECT obj_description('aedpics.{RULE}'::regclass, 'pg_class')"
    assert query(login, said) == [("at most one; 100 % of it's",)]
    assert ("COMMENT ON" in " ".join(done["statements"])) == (strategy == "concurrent")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_index_that_the_script_drops_again_is_found_before(
    login: Login, release: Path, shaped: Callable[[str], None], present: Module, strategy: str
) -> None:
    shaped(f"{SHAPED}; DROP INDEX IF EXISTS {DATE};")
    before = traces(login)
    stopped = present(strategy=strategy, max_write_pause_ms=60_000)
    assert f"statement 8 drops {DATE} after it was built" in stopped["seen"]
    assert (calls(release), traces(login)) == (0, before)


def test_what_prisma_would_have_to_run_from_its_beginning_is_refused_over_a_built_index(
    login: Login, release: Path, shaped: Callable[[str], None], present: Module
) -> None:
    """A migration that does more cannot be gone on with, and Prisma would drop the index that is there."""
    shaped(f"{SHAPED}; ALTER TABLE inspection_sessions ADD COLUMN reviewed boolean;")
    query(login, CREATE)
    before = traces(login)
    for strategy in STRATEGIES:
        stopped = present(strategy=strategy)
        assert "statement 8 begins with ALTER TABLE" in stopped["seen"]
        assert strategy == "concurrent" or f"{DATE} exist already" in stopped["seen"]
        assert (calls(release), traces(login)) == (0, before)


@pytest.fixture
def writer(login: Login, release: Path) -> Iterator[Connection]:
    """Somebody who has written to the second table and does not commit."""
    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SET application_name = 'dbeaver'; LOCK TABLE aedpics.inspection_schedules IN ROW EXCLUSIVE MODE"
        )
        yield connection
        if not connection.closed:
            connection.rollback()


def named(writer: Connection) -> str:
    """How a message names the writer."""
    return f"pid {writer.info.backend_pid} (aedpics_admin, idle in transaction"


def test_a_lost_lock_in_one_transaction_leaves_nothing_and_is_tried_again(
    login: Login,
    plan: Plan,
    release: Path,
    shaped: Callable[[str], None],
    writer: Connection,
    history: Module,
    present: Module,
) -> None:
    """Prisma's own engine sends the script whole: the second table's lock takes the first index back with it."""
    stopped = present(attempts=2, lock_timeout_ms=200)
    assert "No lock on aedpics.inspection_schedules in 2 attempt(s)" in stopped["seen"]
    assert "migrate_attempts=2 with migrate_lock_timeout_ms=200" in stopped["seen"]
    assert named(writer) in stopped["seen"]
    assert "dbeaver from 127.0.0.1" in stopped["seen"]
    assert (calls(release), history()["verdict"], verdicts(login, plan)) == (2, "rolled_back", ["missing"] * 3)
    writer.rollback()
    assert present()["changed"]


@pytest.mark.parametrize("strategy", ["prisma", "auto"])
def test_a_lock_lost_after_the_first_index_is_gone_on_with_beside_the_writer(
    login: Login,
    plan: Plan,
    release: Path,
    shaped: Callable[[str], None],
    writer: Connection,
    history: Module,
    present: Module,
    strategy: str,
) -> None:
    behave(release, "statement by statement")
    waiting = "SELECT 1 FROM pg_catalog.pg_stat_activity WHERE application_name LIKE 'at-most-one-prisma-%'"
    rule = f"SELECT 'aedpics.{RULE}'::regclass::oid FROM aedpics._prisma_migrations WHERE finished_at IS NULL"
    with in_thread(lambda: present(strategy=strategy, max_write_pause_ms=60_000, lock_timeout_ms=500)) as results:
        wait_for(lambda: query(login, waiting))
        wait_for(lambda: not query(login, waiting))  # its one attempt is over
        (built,) = query(login, rule)
        query(login, "SELECT 1 FROM aedpics.inspection_schedules")  # nobody waits behind us
        writer.rollback()
    (done,) = results
    assert (done.get("strategy"), done.get("attempts"), done.get("history")) == ("concurrent", 1, "applied"), done
    assert [session["pid"] for session in done["stalled_by"]] == [writer.info.backend_pid]
    assert query(login, f"SELECT 'aedpics.{RULE}'::regclass::oid") == [built]
    assert verdicts(login, plan) == ["present"] * 3
    assert (history()["verdict"], [row.failed for row in rows(login, plan)]) == ("applied", [False, False])


def test_a_writer_who_outlasts_the_deadline_is_named_and_the_same_again_goes_on(
    login: Login,
    plan: Plan,
    release: Path,
    shaped: Callable[[str], None],
    writer: Connection,
    history: Module,
    present: Module,
) -> None:
    behave(release, "statement by statement")
    stopped = present(deadline_s=5, lock_timeout_ms=200)
    assert stopped["details"]["cause"] == "deadline"
    for words in ("aedpics.inspection_schedules", "migrate_deadline_s", named(writer), "dbeaver from 127.0.0.1"):
        assert words in stopped["seen"]
    assert f"SELECT pg_terminate_backend({writer.info.backend_pid});" in stopped["next_step"]
    assert "ansible-playbook deploy.yml -l <environment>" in stopped["next_step"]
    assert (history()["verdict"], verdicts(login, plan)) == ("failed", ["present", "missing", "missing"])

    writer.rollback()
    done = present()
    assert (done["strategy"], done["attempts"], calls(release)) == ("concurrent", 0, 2)
    assert [text.split()[0] for text in done["statements"]] == ["CREATE", "CREATE", "INSERT"]
    assert (history()["verdict"], verdicts(login, plan)) == ("applied", ["present"] * 3)


def test_a_lock_lost_in_a_migration_that_does_more_is_the_error(
    login: Login,
    plan: Plan,
    release: Path,
    shaped: Callable[[str], None],
    writer: Connection,
    run_module: Module,
    login_args: dict[str, Any],
    plan_data: dict[str, Any],
    history: Module,
    present: Module,
) -> None:
    """Only Prisma may run it, from its beginning: what stays is named, and taken back as a rollback takes it back."""
    behave(release, "statement by statement")
    shaped(f"{SHAPED}; ALTER TABLE inspection_sessions ADD COLUMN reviewed boolean;")
    stopped = present(lock_timeout_ms=200)
    assert stopped["details"]["cause"] == "lock_timeout"
    for words in ("No lock on aedpics.inspection_schedules", named(writer), f"Built before it: {RULE}"):
        assert words in stopped["seen"]
    assert "cannot be marked" not in stopped["msg"]
    assert run_module("index_set", {"login": login_args, "plan": plan_data, "state": "absent"})["changed"]
    assert history("rolled_back")["marked"] == 1
    writer.rollback()
    assert present()["strategy"] == "prisma"


def test_what_cannot_be_built_is_known_before_the_clean_up(
    login: Login, release: Path, shaped: Callable[[str], None], foreseen: Callable[..., readiness.Readiness]
) -> None:
    """What prepare asks: the words with which the build would stop; the duplicates are still there then."""
    with connect(login) as connection:
        open_session(connection, "AED-1")
        open_session(connection, "AED-1")
    assert [foreseen(strategy).refusal for strategy in STRATEGIES] == [""] * 3
    assert foreseen("auto", max_write_pause_ms=0).strategy in ("prisma", "concurrent")

    shaped(f"{SHAPED}; ALTER TABLE inspection_sessions ADD COLUMN reviewed boolean;")
    assert "statement 8 begins with ALTER TABLE" in foreseen("concurrent").refusal
    assert (foreseen("prisma").refusal, foreseen("prisma").strategy) == ("", "prisma")

    for encoding in ("utf-16", "utf-8-sig"):
        (release / "prisma/migrations" / OURS / "migration.sql").write_text(SHAPED, encoding=encoding)
        for strategy in STRATEGIES:
            assert f"migration.sql of {OURS}" in foreseen(strategy).refusal
    shaped(SHAPED)
    query(login, "ALTER TABLE aedpics.inspection_schedules RENAME TO was")
    query(login, "CREATE TABLE aedpics.inspection_schedules (LIKE aedpics.was) PARTITION BY RANGE (scheduled_for)")
    assert [foreseen(strategy).refusal for strategy in STRATEGIES] == [""] * 3
    query(login, f"CREATE TABLE aedpics.{DATE} ()")
    assert f"{DATE} is different (kind" in foreseen("auto").refusal


def test_crlf_is_no_edit(
    login: Login, release: Path, shaped: Callable[[str], None], history: Module, present: Module
) -> None:
    present(strategy="concurrent")
    (release / "prisma/migrations" / OURS / "migration.sql").write_bytes(SHAPED.replace("\n", "\r\n").encode())
    assert history()["verdict"] == "applied"
    assert not present()["changed"]
    shaped(SHAPED + "-- edited")
    assert history()["verdict"] == "edited"
