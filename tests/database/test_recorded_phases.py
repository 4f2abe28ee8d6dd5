"""index_set as the last call of a phase: migrate's build and verify's proof are recorded once, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from at_most_one.fence import write_fence
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.runs import journal, requests
from at_most_one.runs.controllers import Controller

from tests.database.prisma_release import behave
from tests.database.prisma_release import present as present  # fixtures
from tests.database.prisma_release import release as release

BUILD = {"strategy", "history", "pending", "repaired", "attempts", "seconds", "stalled_by"} | {
    "write_pause_predicted_ms",
    "write_pause_ms",
}
FAULTS = {"race": [500]}
Recorded = Callable[[], list[tuple[str, str, Any]]]


@pytest.fixture
def run_id(login: Login, plan: Plan) -> str:
    with connect(login) as connection:
        opening = journal.Opening(plan, "production", "minsu", Controller("gateway-2", 1))
        return journal.open_run(connection, opening).run_id


@pytest.fixture
def recorded(login: Login, run_id: str) -> Recorded:
    """The run's phases in the journal."""

    def read() -> list[tuple[str, str, Any]]:
        with connect(login) as connection:
            (run,) = journal.read(connection, run_id=run_id)
        return [(phase["name"], phase["status"], phase["details"]) for phase in run["phases"]]

    return read


@dataclass(frozen=True)
class Verify:
    """The verify phase's call, and what the catalog and the journal show of it."""

    call: Callable[..., dict[str, Any]]
    connection: Connection
    plan: Plan
    recorded: Recorded

    def __call__(self, **options: Any) -> dict[str, Any]:
        return self.call(**options)

    def fence(self) -> str:
        return write_fence.query(self.connection, self.plan)[0].state

    def execute(self, statement: str) -> None:
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute(statement)


@pytest.fixture
def verify(
    run_module: Callable[..., dict[str, Any]],
    login_args: dict[str, Any],
    plan_data: dict[str, Any],
    release: Path,
    run_id: str,
    connection: Connection,
    plan: Plan,
    recorded: Recorded,
) -> Verify:
    args: dict[str, Any] = {"login": login_args, "plan": plan_data, "state": "verified", "release_path": str(release)}
    args |= {"lower_fence": True, "run_id": run_id, "phase": "verify", "phase_details": {"faults_before": FAULTS}}

    def call(*, check: bool = False, **options: Any) -> dict[str, Any]:
        return run_module("index_set", {**args, **options}, check=check)

    return Verify(call, connection, plan, recorded)


@pytest.fixture
def to_end(login: Login, run_id: str) -> None:
    """Somebody has asked the run to end."""
    with connect(login) as connection:
        requests.write(connection, run_id, "abort", "hana", "laptop")


@pytest.fixture
def migrated(present: Callable[..., dict[str, Any]], plan: Plan, connection: Connection) -> None:
    """The indexes are built and recorded by Prisma, and the fence is still up."""
    write_fence.raise_fence(connection, plan)
    connection.commit()
    assert present()["changed"]


class TestMigrate:
    def test_a_build_is_recorded_with_what_it_cost(
        self, present: Callable[..., dict[str, Any]], run_id: str, recorded: Recorded
    ) -> None:
        options = {"run_id": run_id, "phase": "migrate"}
        assert present(check=True, **options)["changed"]
        assert recorded() == [], "check mode records nothing"
        built = present(**options)
        ((phase, status, details),) = recorded()
        assert (phase, status, details) == ("migrate", "ok", {name: built[name] for name in BUILD})
        assert not present(**options)["changed"]
        _, (phase, status, details) = recorded()
        assert (phase, status, details["strategy"]) == ("migrate", "unchanged", "none")

    def test_a_build_that_failed_is_not(
        self, release: Path, present: Callable[..., dict[str, Any]], run_id: str, recorded: Recorded
    ) -> None:
        behave(release, "late duplicate")
        stopped = present(run_id=run_id, phase="migrate")
        assert stopped["details"]["cause"] == "duplicates", "worth another round"
        blocked = present(run_id=run_id, phase="migrate", fail_on_duplicates=False)
        assert (blocked.get("failed"), blocked["changed"]) == (None, False)
        assert "1 duplicate group(s) are left inside the rule" in blocked["blocked"]
        (release / "prisma").rename(release / "gone")
        assert present(run_id=run_id, phase="migrate", fail_on_duplicates=False)["failed"], "any other error is one"
        assert recorded() == []

    @pytest.mark.usefixtures("to_end")
    def test_a_run_that_is_to_end_builds_nothing(
        self, present: Callable[..., dict[str, Any]], run_id: str, recorded: Recorded
    ) -> None:
        assert present(check=True, run_id=run_id, phase="migrate")["changed"]
        stopped = present(run_id=run_id, phase="migrate")
        assert f"Run {run_id} was asked to end by hana from laptop at" in stopped["msg"]
        assert (stopped["details"]["cause"], recorded()) == ("aborted", [])
        assert [index["verdict"] for index in present(check=True)["indexes"]] == ["missing"] * 3


@pytest.mark.usefixtures("migrated")
class TestVerify:
    def test_the_fence_is_lowered_and_the_phase_recorded_once(self, verify: Verify) -> None:
        predicted = verify(check=True)
        assert (predicted["changed"], predicted["fence"], verify.recorded()) == (True, "lowered", [])
        assert verify.fence() == "raised"
        done = verify()
        assert (done["statements"], done["diff"]) == (predicted["statements"], predicted["diff"])
        assert done["diff"] == {"before": "write fence: raised\n", "after": "write fence: lowered\n"}
        assert (done["history"], done["exact"], done.get("warnings")) == ("applied", True, None)
        assert verify.fence() == "lowered"
        details = {"indexes": done["indexes"], "duplicates_left": 0, "fence": "lowered", "faults_before": FAULTS}
        assert verify.recorded() == [("verify", "ok", details)]
        assert verify()["changed"] is False

    @pytest.mark.parametrize(
        ("fault", "said"),
        [
            ("UPDATE aedpics._prisma_migrations SET rolled_back_at = now()", "is earlier_pending"),
            ("DROP INDEX aedpics.idx_inspection_schedules_active", "idx_inspection_schedules_active is missing"),
        ],
    )
    def test_a_fault_stops_before_the_fence_is_lowered(self, verify: Verify, fault: str, said: str) -> None:
        verify.execute(fault)
        for check in (True, False):
            stopped = verify(check=check)
            assert stopped["failed"], stopped
            assert said in stopped["msg"]
            assert len(stopped["details"]["indexes"]) == 3, "the report shows them"
        assert verify.fence() == "raised"
        assert verify.recorded() == []

    def test_a_history_is_not_judged_where_the_migration_is_only_predicted(self, verify: Verify) -> None:
        verify.execute("UPDATE aedpics._prisma_migrations SET rolled_back_at = now()")
        assert verify(check=True, fail=False)["history"] == "earlier_pending"

    def test_a_fence_that_cannot_be_dropped_is_a_warning(self, login: Login, verify: Verify) -> None:
        with connect(login) as reader, reader.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM aedpics.inspection_sessions")
            held = verify(fence_lock_timeout_ms=100, fence_lock_attempts=2)
            assert not held.get("failed")
            (warning,) = held["warnings"]
            assert f"pid {reader.info.backend_pid}" in str(warning)
            assert "within 0.2 s" in str(warning)
            reader.rollback()
        assert held["fence"] == "partial"
        assert [phase for phase, _, _ in verify.recorded()] == ["verify"]
        assert verify()["fence"] == "lowered"

    def test_a_lost_run_lowers_and_records_nothing(self, login: Login, verify: Verify) -> None:
        with connect(login) as other:
            opening = journal.Opening(verify.plan, "production", "jiwoo", Controller("gateway-3", 1))
            journal.open_run(other, opening, takeover=True)
        stopped = verify()
        assert "was closed as abandoned by run" in stopped["msg"]
        assert len(stopped["details"]["indexes"]) == 3
        assert verify.fence() == "raised"
        assert verify.recorded() == []

    @pytest.mark.usefixtures("to_end")
    def test_a_run_that_is_to_end_ends_once_it_is_verified_and_before_a_host_is_switched(self, verify: Verify) -> None:
        assert verify(check=True, cutover_hosts=2)["exact"]
        stopped = verify(cutover_hosts=2)
        assert "was asked to end by hana from laptop at" in stopped["msg"]
        assert "has ended before the cutover" in stopped["msg"]
        assert (verify.fence(), verify.recorded()) == ("lowered", [])
        assert verify()["exact"], "without a cutover nobody is asked"
        assert [phase for phase, _, _ in verify.recorded()] == ["verify"]
