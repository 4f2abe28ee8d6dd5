"""What every suite shares."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ansible.module_utils
import pytest
from at_most_one.postgres.connection import Connection
from at_most_one.system import live_step

from tests.support import pm2
from tests.support.module_process import HARNESS
from tests.support.postgres import Server
from tests.support.service_database import GuideExample, running_server
from tests.support.service_database import seed_guide_example as seed

ROOT = Path(__file__).parents[1]
# As Ansible ships it to a host: at_most_one_entry imports the core by this name, whichever test comes first.
ansible.module_utils.__path__.append(str(ROOT / "module_utils"))


@pytest.fixture(scope="session")
def run_module() -> Callable[..., dict[str, Any]]:
    """Runs a module of library/ (or of lab/library/: ``home``) in a process of its own; its result, failed or not."""

    def run(
        name: str,
        args: dict[str, Any],
        *,
        check: bool = False,
        diff: bool = True,
        home: Path = ROOT,
        before: Sequence[str] = (),  # what the command is to begin with
    ) -> dict[str, Any]:
        parameters = {**args, "_ansible_check_mode": check, "_ansible_diff": diff, "_ansible_module_name": name}
        paths = [str(directory / "module_utils") for directory in dict.fromkeys((home, ROOT))]
        done = subprocess.run(
            [*before, sys.executable, "-c", HARNESS, str(home / "library" / f"{name}.py"), *paths],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": parameters}),
            capture_output=True,
            text=True,
            timeout=120,
        )
        try:
            result: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            pytest.fail(f"{name} answered no JSON (exit {done.returncode}):\n{done.stdout}\n{done.stderr}")
        assert done.returncode == (1 if result.get("failed") else 0)
        return result

    return run


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One PostgreSQL for all tests of this process."""
    with running_server() as running:
        yield running


@pytest.fixture(scope="session")
def seed_guide_example() -> Callable[[Connection], GuideExample]:
    """Fills and commits the guide's example."""
    return seed


@pytest.fixture(scope="session")
def pm2_executable(tmp_path_factory: pytest.TempPathFactory) -> str:
    """PM2 of the tested version: PM2_BIN, the lab's, or installed for this session."""
    return pm2.find_or_install(tmp_path_factory)


@pytest.fixture
def live_record(monkeypatch: pytest.MonkeyPatch) -> Iterator[live_step.Record]:
    """What a callback reads of the code under test, which has taken the record as a module does."""
    monkeypatch.setenv(live_step.NAME, "")
    monkeypatch.setattr(live_step, "_place", "")
    made = live_step.Record()
    live_step.take()
    yield made
    live_step.take()
