"""The service of examples/systemd on the booted machine: its units behind its nginx, and its users."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.support.ports import wait_until
from tests.systemd.conftest import Machine

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/systemd"
SERVICE = yaml.safe_load((EXAMPLE / "service.yml").read_text())
PATH, URL, UNITS = SERVICE["app_path"], SERVICE["app_instance_url"], SERVICE["app_units"]
RELEASES = f"{PATH}.releases"
NAMES = [unit["name"] for unit in UNITS]
# The unit of the example, with a server of Python in the place of Next.js, and the account of these tests.
REPLACED = {
    "User=deploy\n": "",
    "/usr/bin/node node_modules/next/dist/bin/next start --hostname 127.0.0.1 --port %i": (
        f"{sys.executable} server.py %i"
    ),
    "RestartSec=1\n": "RestartSec=100ms\n",
    "multi-user.target": "at-most-one.target",
}
ASKING = """
import sys, urllib.request
for url in sys.argv[1:]:
    with urllib.request.urlopen(url, timeout=5) as answer:
        print(answer.headers["x-app-commit"], answer.headers["x-app-pid"])
"""


@dataclass(frozen=True)
class Counted:
    """What users.py has counted: requests answered, by build; lost, by reason; the longest wait for an answer."""

    answered: dict[str, int]
    lost: dict[str, int]
    longest_s: float

    @property
    def total(self) -> int:
        return sum(self.answered.values())


class Users:
    """Users of the proxy, at work until the block ends. ``counted`` is what came of their requests."""

    def __init__(self, machine: Machine, users: int = 4, pause_s: float = 0.0) -> None:
        program = [sys.executable, str(ROOT / "tests/systemd/users.py"), URL, str(users), str(pause_s)]
        self._process = subprocess.Popen(
            [*machine.inside, *program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.end = Counted({}, {}, 0.0)

    def counted(self) -> Counted:
        """Until now."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Counted(**json.loads(self._process.stdout.readline()))

    def __enter__(self) -> Users:
        return self

    def __exit__(self, *_: object) -> None:
        last, _nothing = self._process.communicate(timeout=90)
        self.end = Counted(**json.loads(last))


def install(machine: Machine) -> None:
    """Have systemd know both units, stopped, as if they had never failed; nothing is at the application's path."""
    text = (EXAMPLE / "shop@.service").read_text()
    for old, new in REPLACED.items():
        assert old in text
        text = text.replace(old, new)
    machine.write("/etc/systemd/system/shop@.service", text)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "enable", *NAMES)
    machine.run("systemctl", "stop", *NAMES)
    machine.run("systemctl", "reset-failed")
    machine.run("rm", "-rf", PATH, RELEASES)


@contextlib.contextmanager
def serving(machine: Machine) -> Iterator[None]:
    """Start both units, and the proxy of the example before them; both answer until the block ends."""
    machine.run("systemctl", "restart", *NAMES)
    http = "http { access_log off; include /etc/nginx-shop.conf; }"
    machine.write("/etc/nginx-shop.conf", (EXAMPLE / "nginx.conf").read_text())
    machine.write("/etc/nginx-test.conf", f"daemon off; pid /run/nginx-test.pid; user root; events {{}} {http}")
    proxy = subprocess.Popen([*machine.inside, "nginx", "-c", "/etc/nginx-test.conf"], stderr=subprocess.DEVNULL)
    ask = (sys.executable, "-c", ASKING, URL, *(unit["url"] for unit in UNITS))
    try:
        wait_until(lambda: len(machine.run(*ask, check=False).splitlines()) == 3, 30, "units or proxy do not answer")
        yield
    finally:
        machine.run("nginx", "-c", "/etc/nginx-test.conf", "-s", "stop")
        proxy.wait(30)


def pids(machine: Machine) -> list[int]:
    """The main process of each unit, as systemd names it."""
    shown = machine.run("systemctl", "show", "--property=MainPID", "--value", *NAMES)
    return [int(line) for line in shown.split()]


def directories(machine: Machine) -> list[str]:
    """Where each of them works, as the kernel has it."""
    return [machine.run("readlink", f"/proc/{pid}/cwd").strip() for pid in pids(machine)]


def served(machine: Machine) -> list[str]:
    """The build that each unit answers with at its own address, by its own main process."""
    answers = machine.run(sys.executable, "-c", ASKING, *(unit["url"] for unit in UNITS)).split()
    assert list(map(int, answers[1::2])) == pids(machine), answers
    return answers[::2]
