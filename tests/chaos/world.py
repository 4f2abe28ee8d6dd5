"""A small whole to deploy to: a real PostgreSQL, a real PM2, real Prisma, a git origin, and the lightest of services.

It has the lab's tables, migrations and rows, and its own server, daemon, ports and directories, so that several can
stand side by side. What it is put back to is cheap: databases from templates, a link, and instances only when needed.
In namespaces (``apart``) it also has an address and a small disk of its own: its releases are on that, and more can be.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from at_most_one.pm2 import client
from at_most_one.postgres.connection import Login
from at_most_one.system.processes import is_stopped

from tests.chaos.apart import Disk, Network
from tests.chaos.truths import Truths
from tests.support import postgres
from tests.support.ports import free_port, wait_until
from tests.support.prisma_packages import installed

ROOT = Path(__file__).parents[2]
LAB = ROOT / "lab"
RULE = {
    "idx_inspection_sessions_active_session_per_equipment",
    "idx_inspection_schedules_equipment_date",
    "idx_inspection_schedules_active",
}
_PEOPLE = {
    **{f"{person}_email": f"{person}@example.test" for person in ("admin", "inspector", "other")},
    **{f"{person}_hash": "no password" for person in ("admin", "inspector", "other")},
}
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",  # a killed server loses nothing by that; a killed machine would
    "max_connections": "60",
    "timezone": "UTC",
}


class World(Truths):
    """One such whole in one directory."""

    def __init__(self, directory: Path, number: int, *, apart: bool) -> None:
        self.directory, self.name, self.apart = directory, f"chaos{number}", apart
        self.network = Network(f"10.213.{number}.1" if apart else "127.0.0.1")
        self.disk = Disk(directory / "disk")
        self.path, self.releases = directory / "disk/www/aedpics", directory / "disk/www/aedpics.releases"
        self.artifacts = ROOT / "artifacts" / self.name
        self.tasks, self.calls = directory / "tasks.jsonl", directory / "calls.jsonl"  # of the last run
        self.binaries = postgres.find_binaries()
        prefix, self.user = postgres.as_user(self.binaries)
        self.prefix = [part for part in prefix if part not in ("--pdeathsig", "QUIT")]
        self.password = "only for tests: p@ss/word'"
        self.tools = ROOT / ".lab/bin"
        self.environment = {
            "PATH": f"{self.tools}:{os.environ['PATH']}",
            "HOME": str(directory),
            "PM2_HOME": str(directory / "pm2"),
            "LANG": "C.UTF-8",
            "CHECKPOINT_DISABLE": "1",
        }
        self.before = self.after = ""
        self.database_port = self.app_port = 0

    # ---- Making and ending it ----

    def make(self) -> None:
        """From nothing to the example, served, in place."""
        try:
            self._make()
        except BaseException:
            self.end()
            raise

    def _make(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        for part in ("disk", "pm2", "server"):
            (self.directory / part).mkdir(parents=True)
        if self.apart:
            self.network.set_up()
            self.disk.mount()
        self.releases.mkdir(parents=True)
        self.database_port, self.app_port = free_port(), free_port()
        self._start_server()
        self._make_origin()
        self._make_checkout()
        self._make_database()
        self._make_inventory()
        self.start_again()

    def end(self) -> None:
        """Stop what runs; what it wrote beside the small disk stays, for whoever looks into a failure."""
        self.pm2("kill")
        with contextlib.suppress(subprocess.CalledProcessError):  # it may not run
            self.pg_ctl("stop", "-m", "immediate")

    def pg_ctl(self, *arguments: str) -> None:
        log = self.directory / "server/log"
        command = [
            *self.prefix,
            str(self.binaries / "pg_ctl"),
            "-D",
            str(self.directory / "server/data"),
            "-l",
            str(log),
        ]
        subprocess.run([*command, "-w", *arguments], cwd=self.directory / "server", check=True, **_QUIET)

    def login(self, database: str = "postgres") -> Login:
        """The superuser's, to the server itself."""
        return Login("127.0.0.1", self.database_port, database, "aedpics_admin", self.password)

    def _start_server(self) -> None:
        server = self.directory / "server"
        more = ["--no-sync"]
        data = postgres.initialise(server, self.binaries, self.prefix, self.login(), user=self.user, more=more)
        settings = {**_SETTINGS, "port": str(self.database_port)}
        with (data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        self.pg_ctl("start")

    def _make_origin(self) -> None:
        found = importlib.util.spec_from_file_location("lab_origin", LAB / "bin/origin.py")
        assert found
        assert found.loader
        module = importlib.util.module_from_spec(found)
        sys.modules["lab_origin"] = module
        found.loader.exec_module(module)
        origin = module.Origin(self.directory / "origin.git")
        origin.create()
        sources = self.directory / "sources"
        shutil.copytree(ROOT / "tests/chaos/app", sources)
        shutil.copytree(LAB / "app/prisma", sources / "prisma")
        (sources / "lib").mkdir()
        for name in ("database-url.mjs", "migration-adapter.mjs"):
            shutil.copy(LAB / "app/lib" / name, sources / "lib")
        for name in ("prisma.config.ts", ".gitignore"):
            shutil.copy(LAB / "app" / name, sources)
        self.before = origin.commit(sources, "The service before the rule", "2025-11-01T00:00:00+0000")
        shutil.copytree(LAB / "app-after/prisma", sources / "prisma", dirs_exist_ok=True)
        with (sources / "server.cjs").open("a") as file:
            file.write("// with the rule\n")
        self.after = origin.commit(sources, "The rule", "2025-11-10T00:00:00+0000", self.before)
        origin.point("main", self.after)
        module.checkout(origin, self.before, self.path)

    @property
    def build_commands(self) -> list[list[str]]:
        """What stands for npm ci, prisma generate and npm run build: the same artefacts, in no time."""
        packages = installed(LAB / "app")
        assert packages is not None, "make lab-up builds the service, and with it these packages"
        return [
            ["ln", "-sfn", str(packages), "node_modules"],
            ["mkdir", "-p", ".next/server", ".next/static"],
            ["sh", "-c", "git rev-parse HEAD > .next/BUILD_ID"],
        ]

    def _make_checkout(self) -> None:
        for command in self.build_commands:
            subprocess.run(command, cwd=self.path, check=True, **_QUIET)
        self._write_settings()

    def _write_settings(self) -> None:
        """As a file of its own: the checkout that a deployment has adopted shares it with the other releases."""
        (self.path / ".env.production").unlink(missing_ok=True)
        url = f"postgresql://aedpics_admin:unused@127.0.0.1:{self.database_port}/aedpics?schema=aedpics"
        values = {"DATABASE_URL": url, "APP_PATH": self.path, "PORT": self.app_port}
        (self.path / ".env.production").write_text("".join(f'{name}="{value}"\n' for name, value in values.items()))

    def _make_database(self) -> None:
        self.maintain("CREATE DATABASE before_template")
        with self.cursor("before_template") as cursor:
            cursor.execute("CREATE SCHEMA aedpics")
        environment = {**self.environment, "DATABASE_URL": self.login("before_template").url(schema="aedpics")}
        prisma = [str(self.path / "node_modules/.bin/prisma"), "migrate", "deploy"]
        subprocess.run(prisma, cwd=self.path, env=environment, check=True, **_QUIET)
        with self.cursor("before_template") as cursor:
            cursor.execute((LAB / "sql/people.sql").read_text(), _PEOPLE)
            cursor.execute((LAB / "sql/example.sql").read_text())
            cursor.execute("VACUUM ANALYZE")
        self.maintain("CREATE DATABASE aedpics TEMPLATE before_template")

    def _make_inventory(self) -> None:
        variables = {
            "environment_name": self.name,
            "ansible_connection": "local",
            "ansible_pipelining": True,
            "ansible_python_interpreter": sys.executable,
            "app_name": "aedpics",
            "app_path": str(self.path),
            "app_url": f"http://127.0.0.1:{self.app_port}",
            "app_environment_path": str(self.tools),
            "app_build_header": "x-app-commit",
            "app_pid_header": "x-app-pid",
            "app_boot_command": ["node", "server.cjs", "--port", "{port}"],
            "app_instance_timeout_s": 30,
            "app_admin_login": {"email": "admin@example.test", "password": "unused"},
            "app_user_login": {"email": "inspector@example.test", "password": "unused"},
            "app_canary": {"equipment_serial": "11-0000001"},
            "pm2_bin": str(self.tools / "pm2"),
            "pm2_home": str(self.directory / "pm2"),
            "pm2_reload_stable_s": 1,
            "rollback_stable_s": 1,
            "database_host": "127.0.0.1",
            "database_port": self.database_port,
            "database_name": "aedpics",
            "database_user": "aedpics_admin",
            "database_password": self.password,
            "prepare_gates": [],
            "release_min_free_mb": 1,  # of the small disk
            "prepare_build_commands": self.build_commands,
            # The service has no users and no sessions: what they see is judged elsewhere (tests/deploy).
            "prepare_checks": ["health"],
            "healthcheck_checks": ["root", "health"],
            "healthcheck_max_failed_percent": 100,
            "healthcheck_max_gap_ms": 600_000,
        }
        inventory = self.directory / "inventory"
        (inventory / "group_vars").mkdir(parents=True)
        (inventory / "group_vars/all.yml").symlink_to(ROOT / "inventories/all.yml")
        (inventory / f"group_vars/{self.name}.yml").write_text(json.dumps(variables, indent=1))
        hosts: dict[str, Any] = {self.name: {"hosts": {f"{self.name}-host": {}}}}
        (inventory / "hosts.yml").write_text(json.dumps(hosts, indent=1))

    # ---- What is done to it ----

    def maintain(self, *statements: str) -> None:
        with self.cursor("postgres") as cursor:
            for statement in statements:
                cursor.execute(statement)

    def pm2(self, *arguments: str) -> str:
        command = [str(self.tools / "pm2"), *arguments]
        done = subprocess.run(command, env=self.environment, cwd=self.directory, capture_output=True, text=True)
        return done.stdout

    def kill_pm2(self) -> None:
        """Its daemon, with which its workers end."""
        daemon = client.daemon_of(client.Pm2(str(self.tools / "pm2"), str(self.directory / "pm2")))
        assert daemon, "PM2 is up before it is killed"
        os.kill(daemon.pid, signal.SIGKILL)
        wait_until(lambda: not self.workers(), 10, "the workers of a dead PM2 do not end")

    def start_again(self) -> None:
        """What an operator does whose PM2 has no application."""
        self.pm2("start", str(self.path / "ecosystem.config.cjs"))
        self._until_served(self.before if self.link() == "in place" else self.link())

    # ---- Putting it back ----

    def keep_as_deployed(self) -> None:
        """What is there now is what a rollback starts from."""
        self.let_go("aedpics")
        self.maintain("CREATE DATABASE deployed_template TEMPLATE aedpics")

    def put_back(self, *, deployed: bool) -> None:
        """Deployed, or before the first deployment: in place, without a release of the wanted commit."""
        commit = self.after if deployed else self.before
        self.put_database("deployed_template" if deployed else "before_template")
        if self.link() != "in place":
            release = self.releases / commit
            if self.link() != commit or self.workers() != [release.resolve()] * 2 or self.served() != {commit}:
                new = self.path.with_name("aedpics.new")
                new.symlink_to(release)
                new.replace(self.path)
                self._serve_again(commit)
        if not deployed:
            if self.link() != "in place":
                self.path.unlink()
                (self.releases / self.before).rename(self.path)
                self._write_settings()
            for left in self.releases.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()

    def put_database(self, template: str, where: str = "") -> None:
        """The database as it was kept under that name; ``where``: in another tablespace."""
        self.let_go("aedpics")
        create = f"CREATE DATABASE aedpics TEMPLATE {template} {where}"
        self.maintain("DROP DATABASE IF EXISTS aedpics WITH (FORCE)", create)

    @contextlib.contextmanager
    def on_the_small_disk(self, template: str) -> Iterator[None]:
        """Its rows and its reports are there, too, while the block lasts; the database is put back before and after."""
        rows = self.disk.directory / "rows"
        rows.mkdir(exist_ok=True)
        if self.user:
            os.chown(rows, self.user.pw_uid, self.user.pw_gid)
        with self.disk.also_at(self.artifacts):
            self.maintain(f"CREATE TABLESPACE small LOCATION '{rows}'")
            try:
                self.put_database(template, "TABLESPACE small")
                yield
            finally:
                self.disk.empty()
                self.put_database(template)
                self.maintain("DROP TABLESPACE small")

    def let_go(self, database: str) -> None:
        """End its sessions, as the server does with those whose client is lost."""
        self.maintain(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
            " AND pid <> pg_backend_pid()"
        )

    def _serve_again(self, commit: str) -> None:
        self.pm2("reload", "aedpics")
        try:
            self._until_served(commit, 10)
        except TimeoutError:
            self.pm2("delete", "aedpics")
            self.pm2("start", str(self.path / "ecosystem.config.cjs"))
            self._until_served(commit)

    def _until_served(self, commit: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while self.served() != {commit} or len(self.workers()) != 2:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{commit} is not served: {self.served()}, {self.workers()}")
            time.sleep(0.1)

    # ---- Running a playbook on it ----

    def run(
        self, playbook: str, *options: str, log: Path, halted: Callable[[int], None] | None = None, **environment: str
    ) -> int:
        """ansible-playbook as from the shell; its exit code, or -9. See :func:`until_ended` for ``halted``."""
        command = [str(ROOT / ".venv/bin/ansible-playbook"), playbook, "-i", str(self.directory / "inventory")]
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_CALLBACK_PLUGINS": f"{ROOT}/callback_plugins:{ROOT}/tests/chaos/callback",
            "ANSIBLE_NOCOLOR": "1",
            **environment,
        }
        with log.open("ab") as output:
            run = subprocess.Popen(
                [*command, "-l", self.name, *options],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                return until_ended(run, halted)
            except BaseException:
                os.killpg(run.pid, signal.SIGKILL)
                raise


def until_ended(run: subprocess.Popen[bytes], halted: Callable[[int], None] | None) -> int:
    """The exit code. Each time the process stands still (SIGSTOP), ``halted`` gets its pid; then it goes on."""
    deadline = time.monotonic() + 600
    while (code := run.poll()) is None:
        if halted and is_stopped(run.pid):
            halted(run.pid)
            run.send_signal(signal.SIGCONT)
        if time.monotonic() > deadline:
            raise subprocess.TimeoutExpired(run.args, 600)
        time.sleep(0.05)
    return code


_QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
