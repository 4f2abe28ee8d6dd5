"""deploy.yml and rollback.yml on the booted machine: its PostgreSQL, its git origin, its units behind nginx, its users.

ansible-playbook runs there as well: the one host of the service is its control node. The application is a small server
of Python, with nothing of Node.js or Prisma.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.systemd import shop
from tests.systemd.conftest import Machine
from tests.systemd.shop import NAMES, PATH, RELEASES, ROOT, SERVICE, URL, Users, directories, pids, served

ORIGIN, PROJECT = "/srv/origin", "/srv/project"
INVENTORY = f"{PROJECT}/inventories/shop"
BUILD = """\
set -eu
commit=$(git rev-parse HEAD)
printf '{"commit": "%s", "fault": "%s"}' "$commit" "$(cat fault)" > behaviour.json
"""
DIGEST = "SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM public.enrolments AS t"
INDEXES = "SELECT count(*) FROM pg_indexes WHERE indexname = 'one_active_enrolment'"


class Database:
    """PostgreSQL on the machine, asked through the program that keeps it."""

    def __init__(self, machine: Machine) -> None:
        place = ["env", f"--chdir={ROOT}", "PYTHONPATH=module_utils:.", "PYTHONDONTWRITEBYTECODE=1"]
        self._process = subprocess.Popen(
            [*machine.inside, *place, sys.executable, "-m", "tests.systemd.database"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.login: dict[str, Any] = self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "PostgreSQL does not answer on the machine"
        return json.loads(line)

    def rows(self, statement: str) -> Any:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(statement) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def end(self) -> None:
        self._process.communicate(timeout=60)


@dataclass(frozen=True)
class Shop:
    """The service at work, and what can be deployed to it."""

    machine: Machine
    database: Database
    old: str
    new: str
    broken: str

    @property
    def state(self) -> tuple[list[str], Any, bool]:
        """What each unit serves, the table's content, and whether the planned index is there."""
        return served(self.machine), self.database.rows(DIGEST), self.database.rows(INDEXES) == [[1]]

    def play(self, playbook: str, *arguments: str) -> tuple[int, str, dict[str, Any]]:
        """Exit code, output and report."""
        place = ["env", f"--chdir={ROOT}", f"ANSIBLE_CONFIG={ROOT}/ansible.cfg", "ANSIBLE_NOCOLOR=1", "LC_ALL=C.UTF-8"]
        command = [f"{ROOT}/.venv/bin/ansible-playbook", playbook, "-i", INVENTORY, "-l", "shop"]
        given = ["-e", f"project_path={PROJECT}", *arguments]
        done = subprocess.run(
            [*self.machine.inside, *place, *command, *given],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        report = self.machine.run("cat", f"{PROJECT}/artifacts/shop/latest/report.json", check=False) or "{}"
        return done.returncode, done.stdout + done.stderr, json.loads(report)


def git(machine: Machine, *words: str, place: str = ORIGIN) -> str:
    who = ("-c", "user.name=tests", "-c", "user.email=tests@example.invalid")
    return machine.run("git", "-C", place, *who, *words).strip()


def committed(machine: Machine, fault: str) -> str:
    """One more commit of the application, as its hash."""
    machine.write(f"{ORIGIN}/build.sh", BUILD)
    machine.write(f"{ORIGIN}/fault", fault)
    shutil.copy(ROOT / "tests/support/unit_server.py", machine.root / ORIGIN.lstrip("/") / "server.py")
    git(machine, "add", ".")
    git(machine, "commit", "--quiet", "--allow-empty", "--message", "a release")
    return git(machine, "rev-parse", "HEAD")


def write_inventory(machine: Machine, login: dict[str, Any]) -> None:
    host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_pipelining": True}
    given = {
        **{"environment_name": "shop", "plan": "one-active-enrolment", "report_language": "en", "app_name": "shop"},
        **SERVICE,
        **{"app_url": URL, "app_build_header": "x-app-commit", "app_pid_header": "x-app-pid"},
        **{"app_boot_command": [sys.executable, "server.py", "{port}"], "app_instance_timeout_s": 15},
        **{"app_auth": "bearer", "app_admin_login": {}, "app_user_login": {}, "app_canary": {}},
        **{"healthcheck_checks": ["root", "health"], "prepare_checks": ["health"]},
        **{"migrate_adapter": "sql", "database_host": login["host"], "database_port": login["port"]},
        **{"database_name": login["dbname"], "database_user": login["user"]},
        "database_password": "{{ vault_database_password }}",
        **{"prepare_build_commands": [["sh", "build.sh"]], "prepare_needed_files": ["behaviour.json"]},
        **{"prepare_shared_files": [], "prepare_gates": []},
        **{"prepare_backup_path": f"{PROJECT}/backups", "app_environment_path": login["binaries"]},  # pg_dump
        **{"release_min_free_mb": 10, "pm2_reload_probe_rate_per_s": 10},
    }
    machine.write(f"{INVENTORY}/hosts.yml", yaml.safe_dump({"shop": {"hosts": {"shop-1": host}}}))
    machine.write(f"{INVENTORY}/target.guard", (ROOT / "inventories/production/target.guard").read_text())
    machine.write(f"{INVENTORY}/group_vars/shop/main.yml", yaml.safe_dump(given))
    vault = {"vault_database_password": login["password"]}
    machine.write(f"{INVENTORY}/group_vars/shop/vault.yml", yaml.safe_dump(vault))
    plan = (ROOT / "examples/plans/one-active-enrolment.yml").read_text()
    machine.write(f"{PROJECT}/plans/one-active-enrolment.yml", plan)


@pytest.fixture
def deployable(machine: Machine) -> Iterator[Shop]:
    """Both units serve a checkout in place; the origin has a newer commit and a broken one, the table duplicates."""
    shop.install(machine)
    machine.run("rm", "-rf", ORIGIN, PROJECT)
    machine.run("git", "init", "--quiet", "--initial-branch=main", ORIGIN)
    old = committed(machine, "")
    git(machine, "checkout", "--quiet", "-b", "broken")
    broken = committed(machine, "crash at boot")
    git(machine, "checkout", "--quiet", "main")
    machine.run("git", "clone", "--quiet", ORIGIN, PATH)
    machine.run("sh", "-c", f"cd {PATH} && sh build.sh")
    new = committed(machine, "")
    database = Database(machine)
    try:
        write_inventory(machine, database.login)
        with shop.serving(machine):
            yield Shop(machine, database, old, new, broken)
    finally:
        database.end()
        machine.run("systemctl", "stop", *NAMES)
        machine.run("rm", "-rf", PATH, RELEASES)


@pytest.fixture
def beside_users(deployable: Shop) -> Iterator[Callable[[], None]]:
    """Somebody asks the proxy all the time; what is yielded ends that, and no request may have been lost."""
    with Users(deployable.machine, users=1, pause_s=0.02) as users:

        def none_lost() -> None:
            counted = users.counted()
            print(counted)
            assert counted.lost == {}
            assert counted.total > 200, counted

        yield none_lost


def test_deployed_again_and_taken_back_without_a_lost_request(
    deployable: Shop, beside_users: Callable[[], None]
) -> None:
    machine, (builds, content, rule), started = deployable.machine, deployable.state, pids(deployable.machine)
    assert (builds, rule) == ([deployable.old] * 2, False)

    code, output, report = deployable.play("deploy.yml")
    assert (code, report.get("outcome")) == (0, "deployed"), output
    assert report["commit"] == {"before": deployable.old, "after": deployable.new}
    assert {phase["name"]: phase["status"] for phase in report["phases"]} == dict.fromkeys(
        ("prepare", "cleanup", "migrate", "verify", "pm2_reload", "healthcheck"), "ok"
    )
    assert [one["pm_id"] for one in report["instances"]] == NAMES
    assert (report["cleanup"]["archived"], report["traffic"]["failures"]) == (12, 0)
    builds, deployed, rule = deployable.state
    assert (builds, rule) == ([deployable.new] * 2, True)
    assert deployed != content
    assert directories(machine) == [f"{RELEASES}/{deployable.new}"] * 2
    switched = pids(machine)
    assert not {*started} & {*switched}

    code, output, report = deployable.play("deploy.yml")
    assert (code, report["outcome"]) == (0, "unchanged"), output
    assert pids(machine) == switched
    assert deployable.state == ([deployable.new] * 2, deployed, True)

    code, output, report = deployable.play("rollback.yml")
    assert (code, report["outcome"]) == (0, "rolled_back"), output
    assert deployable.state == ([deployable.old] * 2, content, False)
    assert directories(machine) == [f"{RELEASES}/{deployable.old}"] * 2
    beside_users()


def test_a_release_that_does_not_boot_leaves_the_old_build_serving_and_loses_no_request(
    deployable: Shop, beside_users: Callable[[], None]
) -> None:
    before, started = deployable.state, pids(deployable.machine)
    broken = ("-e", f"app_commit={deployable.broken}")

    code, output, report = deployable.play("deploy.yml", *broken)
    assert code != 0
    assert (report["outcome"], report["failed_phase"]) == ("stopped", "prepare"), output
    assert "does not boot" in report["error"]
    assert pids(deployable.machine) == started
    assert deployable.state == before

    # Without the trial beside the service it is a unit that meets it, when the rows have left and the index stands.
    code, output, report = deployable.play("deploy.yml", *broken, "-e", '{"app_boot_command": []}')
    assert code != 0
    assert (report["outcome"], report["failed_phase"]) == ("rolled_back", "pm2_reload"), output
    assert f"{NAMES[0]} of shop is not provably new (crashed)" in report["error"]
    assert deployable.state == before
    assert pids(deployable.machine)[1] == started[1], "the other unit was never touched"
    beside_users()
