"""Faults that a deployment has to meet before it changes anything, and the host that is lost after it has.

What must come of each stands in faults.py. One lab for all: whatever stopped has left nothing, so each is the ground of
the next.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from at_most_one.postgres.connection import Login

from tests.deploy import picture
from tests.deploy.conftest import ROOT, Lab, light_build, make, reset, run_playbook
from tests.deploy.faults import FAULTS
from tests.support.standby import standby

Injection = Callable[[Lab], AbstractContextManager[tuple[str, ...]]]
EARLIER = "20250915_add_inspection_schedules"


@contextmanager
def variable(lab: Lab, value: str) -> Iterator[tuple[str, ...]]:
    yield ("-e", value)


@contextmanager
def replica(lab: Lab) -> Iterator[tuple[str, ...]]:
    v = lab.values
    where = (v["database_host"], int(v["database_port"]), v["database_name"])
    login = Login(*where, v["superuser_name"], v["superuser_password"])
    with standby(login, Path(v["postgres_bin"])) as copy:
        yield ("-e", f"database_port={copy.login.port}")


@contextmanager
def failed_history(lab: Lab) -> Iterator[tuple[str, ...]]:
    """As Prisma leaves it when a migration fails: begun, neither finished nor rolled back."""
    row = "aedpics._prisma_migrations WHERE migration_name = %s"
    ((finished,),) = lab.rows(f"SELECT finished_at FROM {row}", EARLIER)
    lab.rows("UPDATE aedpics._prisma_migrations SET finished_at = NULL WHERE migration_name = %s", EARLIER)
    try:
        yield ()
    finally:
        change = "UPDATE aedpics._prisma_migrations SET finished_at = %s WHERE migration_name = %s"
        lab.rows(change, finished, EARLIER)


@contextmanager
def full_disk(lab: Lab) -> Iterator[tuple[str, ...]]:
    """For a commit that cannot have been built before: where nothing is to be built, nobody asks for room."""
    make("lab-fault", "FAULT=failed-build")
    yield ("-e", "{release_min_free_mb: 1000000000, app_branch: fault/failed-build}")


@contextmanager
def missing_chunks(lab: Lab) -> Iterator[tuple[str, ...]]:
    """A commit that cannot have been built before, with a build that is copied and then loses its chunks."""
    make("lab-fault", "FAULT=failed-build")
    variables = json.loads(light_build(lab)[1])
    variables["prepare_build_commands"].append(["rm", "-r", ".next/static/chunks"])
    yield ("-e", json.dumps({**variables, "app_branch": "fault/failed-build"}))


@contextmanager
def migration_does_more(lab: Lab) -> Iterator[tuple[str, ...]]:
    make("lab-fault", "FAULT=migration-does-more")
    yield (*light_build(lab), "-e", "{app_branch: fault/migration-does-more, migrate_strategy: concurrent}")


@contextmanager
def another_way(lab: Lab) -> Iterator[tuple[str, ...]]:
    """What a workflow of the application leaves that resets the path, which is a link since the first cutover."""
    path, commit = Path(lab.values["app_path"]), lab.values["commit_before"]
    release = Path(f"{path}.releases") / commit
    git = ["git", "-C", str(path), "-c", "user.name=other", "-c", "user.email=other@localhost"]
    release.parent.mkdir(exist_ok=True)
    path.rename(release)
    path.symlink_to(release)
    try:
        subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "deployed otherwise"], check=True)
        yield ()
    finally:
        subprocess.run([*git, "reset", "--quiet", "--hard", commit], check=True)
        path.unlink()
        release.rename(path)


INJECTED: dict[str, Injection] = {
    "replica instead of primary": replica,
    "origin unreachable": lambda lab: variable(lab, "app_origin=http://deploy:token@127.0.0.1:1/aedpics.git"),
    "disk nearly full": full_disk,
    "failed Prisma history": failed_history,
    "migration that does more": migration_does_more,
    "missing chunks": missing_chunks,
    "missing shared file": lambda lab: variable(lab, "{prepare_shared_files: [.env]}"),
    "another way of deploying": another_way,
}


@pytest.fixture(scope="module")
def ground(lab: Lab) -> Lab:
    return reset(lab)


@pytest.mark.thorough  # nothing is touched by then; tests/database holds what is asked
def test_a_migration_that_does_more_is_found_by_check_before_it_is_fetched(ground: Lab) -> None:
    fault = FAULTS["migration that does more"]
    releases = Path(f"{ground.values['app_path']}.releases")
    with migration_does_more(ground) as arguments:
        before, there = picture.take(ground), sorted(releases.glob("*"))
        run = run_playbook("deploy.yml", "--check", *arguments)
        picture.assert_as_before(before, picture.take(ground))
    assert sorted(releases.glob("*")) == there
    assert run.code != 0
    for word in (*fault.says, "Expected:", "Next:"):
        assert word in " ".join(run.failures)


# These stop before anything is touched; tests/unit, tests/database and tests/service hold what is asked. A release
# without its chunks would be called deployed with a dead page.
SHOWN = {"missing chunks"}
CASES = [pytest.param(name, marks=[] if name in SHOWN else [pytest.mark.thorough]) for name in INJECTED]


@pytest.mark.parametrize("name", CASES)
def test_stops_and_leaves_nothing(ground: Lab, name: str) -> None:
    fault = FAULTS[name]
    with INJECTED[name](ground) as arguments:
        before, pids, link = picture.take(ground), ground.pids(), ground.link
        run = run_playbook("deploy.yml", *arguments)
        after, served = picture.take(ground), (ground.pids(), ground.link)

    assert run.code != 0
    message = " ".join(run.failures)
    for word in (*fault.says, "Expected:", "Next:"):
        assert word in message
    assert "token" not in run.output
    assert (run.report.get("failed_phase"), run.report.get("outcome")) == (fault.phase, fault.outcome)
    picture.assert_as_before(before, after)
    assert served == (pids, link)
    assert ground.archived() == 0
    assert ground.fences() == 0, "no fence was raised"
    if fault.outcome is None and ground.value("SELECT to_regclass('at_most_one.run') IS NOT NULL"):
        assert ground.value("SELECT count(*) FROM at_most_one.run WHERE outcome IS NULL") == 0


def test_a_host_that_is_lost_in_the_middle(ground: Lab, tmp_path: Path) -> None:
    """Nobody is left who could take anything back; the lease tells the next start, which is asked to."""
    fault = FAULTS["host lost in the middle"]
    before, pids, gone = picture.take(ground), ground.pids(), tmp_path / "gone"
    over = threading.Event()

    def cut() -> None:
        while not over.is_set() and not ground.journal_has("cleanup", "ok"):
            time.sleep(0.02)
        gone.touch()

    cutting = threading.Thread(target=cut)
    cutting.start()
    plugin = {"ANSIBLE_CONNECTION_PLUGINS": str(Path(__file__).parent / "lost"), "LOST_WHEN": str(gone)}
    try:
        run = run_playbook("deploy.yml", "-e", "ansible_connection=losing", environment=plugin)
    finally:
        over.set()
        cutting.join()

    assert run.code != 0
    assert "Connection closed by remote host" in run.output
    assert run.report["outcome"] == "running", "no end was reached"
    assert (fault.phase, fault.outcome) == (None, None)
    assert ground.archived() == 25
    assert ground.fences() > 0, "the fence stays up"
    assert ground.rows("SELECT commit_after, outcome FROM at_most_one.run ORDER BY started_at DESC LIMIT 1") == [
        (ground.values["commit_after"], None)
    ]

    back = run_playbook("rollback.yml", "-e", "report_language=en")
    assert back.code == 0, back.output
    dead = json.loads((ROOT / "artifacts/local" / run.report["run_id"] / "report.json").read_text())
    assert (dead["outcome"], dead["taken_back_by"]) == ("abandoned", back.report["run_id"])
    assert "25 rows" in " ".join(back.output.split())
    picture.assert_as_before(before, picture.take(ground))
    assert ground.pids() == pids
    assert os.path.exists(ground.values["app_path"])
