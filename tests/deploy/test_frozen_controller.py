"""A controller that was frozen while another one deployed, and goes on: no link, process or row is changed by it."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from at_most_one.system.processes import children

from tests.deploy.conftest import PLANNED, ROOT, Lab, light_build, make, run_playbook

FAULT = "fault/log-errors"  # it boots, reloads and answers well, and healthcheck takes it back
STABLE_S = 8  # long enough to be met between two writes


class Controller:
    """ansible-playbook of the first operator, with all that it has started; what is detached from it goes on."""

    def __init__(self, log: Path, *options: str) -> None:
        command = [str(ROOT / ".venv/bin/ansible-playbook"), "deploy.yml", "-i", "inventories/local", "-l", "local"]
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, *options], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )

    def _tree(self) -> list[int]:
        found = [self.process.pid]
        for pid in found:
            found += children(pid)
        return found

    def freeze_when(self, moment: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 300
        while not moment():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        frozen: set[int] = set()
        while new := set(self._tree()) - frozen:
            for pid in new:
                with suppress(ProcessLookupError):  # it has ended since the tree was read
                    os.kill(pid, signal.SIGSTOP)
            frozen |= new

    def wake(self) -> tuple[int, str]:
        for pid in reversed(self._tree()):
            os.kill(pid, signal.SIGCONT)
        code = self.process.wait(600)
        return code, " ".join(self.log.read_text().split())

    def end(self) -> None:
        for pid in self._tree():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def first(fresh: Lab, tmp_path: Path) -> Iterator[Controller]:
    """The first operator deploys a commit of his own."""
    make("lab-fault", f"FAULT={FAULT.partition('/')[2]}")
    stable = f"{{pm2_reload_stable_s: {STABLE_S}, rollback_stable_s: {STABLE_S}, report_language: en}}"
    controller = Controller(tmp_path / "first.log", "-e", f"app_branch={FAULT}", "-e", stable, *light_build(fresh))
    yield controller
    if controller.process.poll() is None:
        controller.end()
    make("lab-reset")


def picture(lab: Lab) -> dict[str, Any]:
    dump = Path(lab.values["pm2_home"]) / "dump.pm2"
    return {
        "link": lab.link,
        "processes": lab.pids(),
        "content": lab.content(),
        "catalog": lab.catalog(),
        "archive": lab.archived(),
        "dump": dump.read_bytes() if dump.exists() else b"",  # none before the first `pm2 save`
        "served": lab.served(20),
    }


def nothing_is_written(lab: Lab) -> bool:
    """Whether no run is inside a write: frozen there it keeps the host (tests/unit/test_run_token.py)."""
    with open(f"{lab.values['app_path']}.releases/.run.lock", "a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def before_the_switch(lab: Lab) -> Callable[[], bool]:
    return lambda: lab.journal_has("verify", "ok")


def inside_the_reload(lab: Lab) -> Callable[[], bool]:
    before = lab.pids()
    return lambda: lab.link != "in place" and len(set(before) & set(lab.pids())) == 1 and nothing_is_written(lab)


def inside_the_way_back(lab: Lab) -> Callable[[], bool]:
    """The link has gone to the new release and back, and the first instance follows it."""
    seen: list[list[int]] = []

    def moment() -> bool:
        if not seen and lab.journal_has("healthcheck", "failed"):
            seen.append(lab.pids())
        return bool(seen) and len(set(seen[0]) & set(lab.pids())) == 1 and nothing_is_written(lab)

    return moment


# tests/service/test_overtaken.py holds every write that is refused.
pytestmark = pytest.mark.thorough


@pytest.mark.parametrize(
    ("point", "says"),
    [
        (before_the_switch, "link not moved"),
        (inside_the_reload, "instance 0 "),
        (inside_the_way_back, "way back failed"),
    ],
)
def test_a_frozen_controller_writes_nothing_once_another_one_has_deployed(
    fresh: Lab, first: Controller, point: Callable[[Lab], Callable[[], bool]], says: str
) -> None:
    first.freeze_when(point(fresh))
    fresh.rows("UPDATE at_most_one.run SET lease_until = clock_timestamp() - interval '1 s' WHERE outcome IS NULL")

    held = run_playbook("deploy.yml", *light_build(fresh))
    assert held.code != 0, "its process is still there"
    assert "its process is still there: it is at work, or frozen" in " ".join(held.failures)
    second = run_playbook("deploy.yml", "-e", "run_takeover=true", *light_build(fresh))
    assert second.code == 0, second.output
    there = picture(fresh)
    assert there["served"] == {fresh.values["commit_after"]}

    code, said = first.wake()

    assert code != 0, said
    assert picture(fresh) == there
    assert f"was overtaken by run {second.report['run_id']}" in said
    assert says in said, "what it had changed before"
    assert fresh.indexes() == dict.fromkeys(PLANNED, (True, True))
    assert fresh.value("SELECT outcome FROM at_most_one.run ORDER BY number DESC LIMIT 1") == second.report["outcome"]


def test_a_frozen_controller_writes_nothing_once_another_one_has_stopped_before_it_wrote(
    fresh: Lab, first: Controller
) -> None:
    """The second run takes rows and indexes of the first one back, and has nothing to write on the host."""
    first.freeze_when(before_the_switch(fresh))
    missing = "{run_takeover: true, prepare_shared_files: [.env]}"
    second = run_playbook("deploy.yml", "-e", missing, *light_build(fresh))
    assert second.code != 0, second.output
    assert second.report["failed_phase"] == "prepare"
    there = picture(fresh)

    code, said = first.wake()

    assert code != 0, said
    assert picture(fresh) == there
    assert f"was overtaken by run {second.report['run_id']}" in said
