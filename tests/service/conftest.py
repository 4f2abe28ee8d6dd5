"""A real PM2 with a real Node application of several releases, and a runner for the modules of library/."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from at_most_one.errors import OperatorError
from at_most_one.http.proof import Demand
from at_most_one.http.served_build import Probe
from at_most_one.pm2 import client as pm2_client
from at_most_one.pm2.preflight import Aim

from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
APPLICATION = Path(__file__).parent / "app"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def daemon(pm2_executable: str) -> Iterator[pm2_client.Pm2]:
    """A PM2 home of our own. PM2 starts the daemon by itself; the path is short because its sockets live in it."""
    home = tempfile.mkdtemp(prefix="amo-")
    target = pm2_client.Pm2(pm2_executable, home)
    try:
        yield target
    finally:
        running = pm2_client.daemon_of(target)
        if running:
            with contextlib.suppress(OperatorError):
                pm2_client.run(target, "kill")
            with contextlib.suppress(ProcessLookupError):
                os.kill(running.pid, signal.SIGTERM)
        shutil.rmtree(home, ignore_errors=True)


@dataclass(frozen=True)
class App:
    """An application behind a link, and its releases."""

    pm2: pm2_client.Pm2
    name: str
    port: int
    path: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def release(self, commit: str, **behaviour: Any) -> Path:
        """Make a release. ``fault``: crash at boot, crash after boot; or what the ecosystem file is to say."""
        directory = self.path.with_name(f"{self.path.name}.releases") / commit
        shutil.copytree(APPLICATION, directory)
        content = {"name": self.name, "port": self.port, "commit": commit, "cwd": str(self.path), **behaviour}
        (directory / "behaviour.json").write_text(json.dumps(content))
        return directory

    def link(self, release: Path) -> None:
        """Switch the link in one step, as a deployment does."""
        fresh = self.path.with_name(f"{self.path.name}.new")
        fresh.symlink_to(release)
        fresh.rename(self.path)

    def aim(self, release: Path, **changes: Any) -> Aim:
        """What a role demands of that release."""
        probe = Probe(self.url, build=release.name, build_header="x-app-commit", pid_header="x-app-pid", timeout_s=2)
        demand = Demand(self.name, str(release), changes.pop("probe", probe), instance_timeout_s=8, stable_s=0.8)
        return Aim(demand, str(self.path), str(self.path / "ecosystem.config.cjs"), **changes)

    def start(self, release: Path) -> None:
        """Link the release and start it the way a person does."""
        self.link(release)
        pm2_client.run(self.pm2, "start", str(self.path / "ecosystem.config.cjs"), "--only", self.name)
        assert self.instances(), "PM2 did not start the application"

    def instances(self) -> tuple[pm2_client.Instance, ...]:
        return pm2_client.listing(self.pm2, self.name).instances

    def module_arguments(self) -> dict[str, Any]:
        """The options that every call of pm2_app or pm2_app_info for this application has."""
        return {"name": self.name, "path": str(self.path), "pm2": self.pm2.executable, "pm2_home": self.pm2.home}


@pytest.fixture
def app(daemon: pm2_client.Pm2, tmp_path: Path) -> Iterator[App]:
    """An application of which nothing is released or started yet."""
    number = next(_numbers)
    made = App(daemon, f"app{number}", free_port(), tmp_path / "app")
    yield made
    if pm2_client.daemon_of(daemon):
        pm2_client.run(daemon, "delete", made.name)
