"""Several hosts with the light application in place, nginx in front of them, and the inventory that names them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml
from at_most_one.pm2 import client as pm2_client
from at_most_one.postgres.connection import Login

from tests.support.nginx import Nginx
from tests.support.ports import free_port, wait_until
from tests.support.prisma_stand_in import EARLIER, MIGRATION, OURS, STAND_IN
from tests.support.ssh import SshHost, make_key

ROOT = Path(__file__).resolve().parents[2]
APPLICATION = ROOT / "tests/hosts/app"
GIT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"} | {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "hosts"), ("EMAIL", "hosts@localhost"), ("DATE", "2025-11-01T00:00:00Z"))
}


def asset(commit: str) -> str:
    """The path of the asset that only the build of this commit makes."""
    return f"/_next/static/chunks/main-{commit}.js"


@dataclass
class Host:
    """One host of the fleet: how it is reached, and the application on it."""

    ssh: SshHost
    app_port: int
    pm2_executable: str
    environment_path: str = ""  # of this host alone

    @property
    def name(self) -> str:
        return self.ssh.name

    @property
    def path(self) -> Path:
        """The application's path."""
        return self.ssh.directory / "www/light"

    @property
    def url(self) -> str:
        return f"http://{self.ssh.address}:{self.app_port}"

    @property
    def pm2(self) -> pm2_client.Pm2:
        return pm2_client.Pm2(self.pm2_executable, str(self.ssh.directory / "pm2"), f"{ROOT}/.lab/bin")

    @property
    def link(self) -> str:
        """The commit that the path leads to, or that it is a checkout in place."""
        return Path(os.readlink(self.path)).name if self.path.is_symlink() else "in place"

    def pids(self) -> list[int]:
        return sorted(one.pid for one in pm2_client.listing(self.pm2, "light").instances)

    def served(self, answers: int = 6) -> set[str]:
        """The commits that answer just now."""
        commits = set()
        for _ in range(answers):
            with urlopen(f"{self.url}/api/health", timeout=10) as answer:
                commits.add(answer.headers["x-app-commit"])
        return commits

    def switch(self, commit: str) -> None:
        """Link a kept release and reload, by hand."""
        fresh = self.path.with_name("fresh")
        fresh.symlink_to(self.path.parent / "light.releases" / commit)
        fresh.rename(self.path)
        pm2_client.run(self.pm2, "reload", "light")

    def start(self, origin: Path, commit: str) -> None:
        """Deploy as people did until now: a checkout in place, built there, started by hand, saved for a reboot."""
        self.path.parent.mkdir()
        _run("git", "clone", "-q", str(origin), str(self.path))
        _run("git", "-C", str(self.path), "reset", "-q", "--hard", commit)
        settings = {
            "PORT": self.app_port,
            "HOST_ADDRESS": self.ssh.address,
            "HOST_NAME": self.name,
            "APP_PATH": self.path,
        }
        (self.path / ".env.production").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        _run("sh", "build.sh", cwd=self.path)
        pm2_client.run(self.pm2, "start", str(self.path / "ecosystem.config.cjs"))
        pm2_client.run(self.pm2, "save")

    def wait(self) -> None:
        """Wait until it answers that it is well."""
        wait_until(lambda: _answers(self), why=f"{self.name} does not answer")

    def stop(self) -> None:
        """End PM2 and everything under it, and forget the application."""
        if pm2_client.daemon_of(self.pm2):
            pm2_client.run(self.pm2, "kill")
        for path in (self.path.parent, Path(self.pm2.home)):
            shutil.rmtree(path, ignore_errors=True)

    def reboot(self) -> None:
        """What a reboot does to PM2: the daemon and its processes are gone, and pm2's start-up script resurrects."""
        pm2_client.run(self.pm2, "kill")
        assert pm2_client.daemon_of(self.pm2) is None
        pm2_client.run(self.pm2, "resurrect")

    def variables(self) -> dict[str, Any]:
        return {
            **self.ssh.variables(),
            "app_instance_url": self.url,
            "app_path": str(self.path),
            "pm2_home": self.pm2.home,
            **({"app_environment_path": self.environment_path} if self.environment_path else {}),
        }


@dataclass
class Fleet:
    """The hosts, their origin, the way in and the inventory."""

    directory: Path
    hosts: list[Host]
    front: Nginx
    origin: Path = field(init=False)
    before: str = field(init=False)
    after: str = field(init=False)

    def __post_init__(self) -> None:
        self.origin = self.directory / "origin.git"
        _run("git", "init", "-q", "--bare", "-b", "main", str(self.origin))
        self._work = self.directory / "work"
        _run("git", "clone", "-q", str(self.origin), str(self._work))
        shutil.copytree(APPLICATION, self._work, dirs_exist_ok=True)
        shutil.copy(ROOT / "lab/app/lib/drain.mjs", self._work)
        (self._work / "prisma.py").write_text(STAND_IN.format(python=sys.executable, ours=OURS))
        self._migration(EARLIER, "-- the schema")
        self.before = self.commit("main", "The service before the rule")
        self._migration(OURS, MIGRATION)
        self.after = self.commit("main", "The rule")

    def _migration(self, name: str, content: str) -> None:
        file = self._work / "prisma/migrations" / name / "migration.sql"
        file.parent.mkdir(parents=True)
        file.write_text(content)

    def commit(self, branch: str, message: str, files: dict[str, str] | None = None) -> str:
        """Push one more commit on top of main, with these files, and say its hash."""
        _run("git", "switch", "-q", "-C", branch, cwd=self._work)
        for name, content in (files or {}).items():
            (self._work / name).write_text(content)
        _run("git", "add", "-A", cwd=self._work)
        _run("git", "commit", "-q", "-m", message, cwd=self._work)
        _run("git", "push", "-q", "origin", branch, cwd=self._work)
        commit = _run("git", "rev-parse", "HEAD", cwd=self._work)
        _run("git", "switch", "-q", "-C", "main", "origin/main", cwd=self._work)
        return commit

    def start(self) -> None:
        """Every host as it is before the first deployment."""
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda host: host.start(self.origin, self.before), self.hosts))
        for host in self.hosts:
            host.wait()

    def stop(self) -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(Host.stop, self.hosts))

    def inventory(self, login: Login, hosts: Sequence[Host] | None = None, **more: Any) -> str:
        """Write the inventory: the environment ``fleet`` of these hosts; ``more`` are variables of the group."""
        root = self.directory / "inventories/fleet"
        (root / "group_vars/fleet").mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "inventories/all.yml", root / "group_vars/all.yml")
        shutil.copy(ROOT / "inventories/local/target.guard", root / "target.guard")
        members = {host.name: host.variables() for host in hosts or self.hosts}
        (root / "hosts.yml").write_text(yaml.safe_dump({"fleet": {"hosts": members}}))
        variables = {
            "environment_name": "fleet",
            "report_language": "en",
            "ansible_python_interpreter": sys.executable,
            "app_name": "light",
            "app_url": self.front.url,
            "app_environment_path": f"{ROOT}/.lab/bin",
            "app_build_header": "x-app-commit",
            "app_pid_header": "x-app-pid",
            "app_boot_command": [],  # what breaks is to break in the reload
            "app_instance_timeout_s": 15,
            "app_auth": "bearer",
            "app_admin_login": {"token": "of nobody"},
            "app_user_login": {"token": "of nobody"},
            "app_canary": {"equipment_serial": "of nobody"},
            "pm2_bin": self.hosts[0].pm2_executable,
            "database_host": login.host,
            "database_port": login.port,
            "database_name": login.dbname,
            "database_user": login.user,
            "database_password": login.password,
            "prepare_gates": [],
            "prepare_checks": ["health"],
            "prepare_build_commands": [["sh", "build.sh"]],
            "healthcheck_checks": ["root", "health"],
            "pm2_reload_stable_s": 1,
            "pm2_reload_probe_urls": [
                {"name": name, "url": self.front.url + path, "method": "GET", "expect": [200]}
                for name, path in (("page", "/"), ("health", "/api/health"), ("old asset", asset(self.before)))
            ],
            **more,
        }
        (root / "group_vars/fleet/main.yml").write_text(yaml.safe_dump(variables))
        return str(root)


@contextlib.contextmanager
def fleet_of(size: int, pm2_executable: str, first_address: int = 11) -> Iterator[Fleet]:
    """A fleet of that many hosts on 127.0.0.11 and the addresses after it; nothing of it is left behind."""
    directory = Path(tempfile.mkdtemp(prefix="amo-"))  # short: sockets live in it
    hosts: list[Host] = []
    fleet = None
    try:
        make_key(directory / "key")
        port = free_port()
        for number in range(size):
            address = f"127.0.0.{first_address + number}"
            ssh = SshHost(f"host-{number + 1}", address, directory / f"h{number + 1}", directory)
            hosts.append(Host(ssh, port, pm2_executable))
            ssh.open()
        front = Nginx(directory / "nginx", [host.url for host in hosts])
        fleet = Fleet(directory, hosts, front)
        front.start()
        yield fleet
    finally:
        if fleet:
            fleet.stop()
            fleet.front.stop()
        for host in hosts:
            host.ssh.lose()
        shutil.rmtree(directory, ignore_errors=True)


def _answers(host: Host) -> bool:
    with contextlib.suppress(OSError, ValueError), urlopen(f"{host.url}/api/health", timeout=5) as answer:
        return bool(json.load(answer)["status"] == "ok")
    return False


def _run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **GIT}, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"{' '.join(command)} failed: {done.stderr}")
    return done.stdout.strip()
