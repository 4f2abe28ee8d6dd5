#!/usr/bin/python
"""The lab's own PostgreSQL server: initialised, started, stopped."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.lab_files import alive, run, write_private

DOCUMENTATION = r"""
module: lab_postgres
short_description: Initialise, start and stop the lab's PostgreSQL server
description:
  - The server listens on 127.0.0.1 only, with a password. It has no UNIX socket, whose path would have a limit of some
    100 bytes.
  - PostgreSQL refuses to run as root. For root this module drops to the machine's C(postgres) user, or to C(nobody)
    when there is none. When that user cannot reach the checkout, the server runs in a user namespace in which root's
    own files belong to that user.
author: at-most-one maintainers
options:
  state:
    description: Whether the server runs.
    type: str
    choices: [started, stopped]
    required: true
  binaries:
    description: The directory of initdb, pg_ctl and postgres.
    type: path
    required: true
  data:
    description: The data directory.
    type: path
    required: true
  port:
    description: The port on 127.0.0.1. Needed to start.
    type: int
  superuser:
    description: The superuser that initdb makes.
    type: str
    default: postgres
  password:
    description: The superuser's password. Needed for the first start.
    type: str
attributes:
  check_mode: {support: full, description: Says what would happen.}
  diff_mode: {support: none, description: There is nothing to show.}
"""

EXAMPLES = r"""
- name: Start the server
  lab_postgres:
    state: started
    binaries: /usr/lib/postgresql/15/bin
    data: "{{ lab_root }}/pg"
    port: 15432
    password: "{{ password }}"
"""

RETURN = r"""
pid:
  description: The postmaster's process id. V(0) when it does not run.
  type: int
  returned: always
  sample: 4711
"""

# A lab: durability is worth nothing here, speed is. With wal_level it can have subscribers, as a real one may. Nothing
# else differs from what a server has by default.
CONFIGURATION = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
max_connections = 200
fsync = off
synchronous_commit = off
full_page_writes = off
wal_level = logical
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %q%u@%d %a '
"""
UNREACHABLE = (
    "PostgreSQL does not run as root, the user {user} cannot reach {path}, and this machine allows no user namespaces. "
    "Expected: one of the three. Next: run make as a normal user, or move the checkout to where {user} can reach it."
)


class Server:
    """The server and the way its programs are started: as ourselves, as another user, or in a user namespace."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.binaries = Path(module.params["binaries"])
        self.data = Path(module.params["data"])
        self.prefix: list[str] = []
        self.user: tuple[int, int] | None = None
        if os.getuid() == 0:
            self._leave_root()

    def fail(self, message: str) -> NoReturn:
        """End the task."""
        self.module.fail_json(msg=message)
        raise AssertionError

    def _leave_root(self) -> None:
        names = {entry.pw_name: entry for entry in pwd.getpwall()}
        entry = names.get("postgres") or names.get("nobody")
        if entry is None:
            self.fail("PostgreSQL does not run as root. Expected: a user postgres or nobody. Next: make one of them.")
        user = (entry.pw_uid, entry.pw_gid)
        tried = [str(self.binaries / "postgres"), str(self.data.parent)]
        reach = ["sh", "-c", 'test -x "$1" && test -x "$2"', "sh", *tried]
        owner = self.data.stat().st_uid if self.data.exists() else None
        if owner in (None, entry.pw_uid) and run(reach, user=user).returncode == 0:
            self.user = user
            return
        unshare = shutil.which("unshare") or "unshare"
        prefix = [unshare, "--user", f"--map-user={user[0]}", f"--map-group={user[1]}", "--"]
        if not shutil.which("unshare") or run([*prefix, self.binaries / "postgres", "--version"]).returncode:
            self.fail(UNREACHABLE.format(user=entry.pw_name, path=self.data.parent))
        self.prefix = prefix

    def program(self, name: str, *arguments: str | Path) -> None:
        """Run one of PostgreSQL's programs; its output is the message when it fails."""
        done = run([*self.prefix, self.binaries / name, *arguments], user=self.user)
        if done.returncode:
            log = self.data / "server.log"
            tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:] if log.exists() else []
            self.fail(f"{name} failed ({done.returncode}): " + " | ".join([*done.stdout.strip().splitlines(), *tail]))

    def initialise(self) -> None:
        """Make the data directory and its superuser."""
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Not in the data directory, which must be empty; where the other user can read it; gone at once.
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=self.data.parent) as password:
            password.write(self.module.params["password"])
            password.flush()
            if self.user:
                os.chown(self.data, *self.user)
                os.chown(password.name, *self.user)
            self.program(
                "initdb",
                *("--pgdata", self.data),
                *("--username", self.module.params["superuser"]),
                *("--pwfile", password.name),
                *("--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--no-sync"),
            )

    def configure(self) -> None:
        """Write the lab's configuration, included by the server's own."""
        lab = self.data / "lab.conf"
        write_private(lab, CONFIGURATION.format(port=self.module.params["port"]))
        main = self.data / "postgresql.conf"
        text = main.read_text(encoding="utf-8")
        if "include = 'lab.conf'" not in text:
            main.write_text(f"{text}\ninclude = 'lab.conf'\n", encoding="utf-8")
        if self.user:
            os.chown(lab, *self.user)

    def start(self) -> None:
        """Start it, making it first when needed, and wait until it accepts connections."""
        if not (self.data / "PG_VERSION").exists():
            self.initialise()
        made_by = (self.data / "PG_VERSION").read_text(encoding="utf-8").strip()
        version = run([self.binaries / "postgres", "--version"]).stdout
        if f" {made_by}." not in version:
            self.fail(
                f"{self.data} was made by PostgreSQL {made_by}, and {self.binaries} holds {version.strip()}. "
                "Expected: the same major version. Next: make lab-down, remove .lab/pg and .lab/bin, make lab-reset."
            )
        self.configure()
        self.program("pg_ctl", "start", "--pgdata", self.data, "--log", self.data / "server.log", "--wait", "--silent")

    def pid(self) -> int:
        """The postmaster's process id, 0 when it does not run."""
        return alive(self.data / "postmaster.pid", mark=self.data) or 0


def main() -> None:
    """The module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["started", "stopped"], "required": True},
            "binaries": {"type": "path", "required": True},
            "data": {"type": "path", "required": True},
            "port": {"type": "int"},
            "superuser": {"type": "str", "default": "postgres"},
            "password": {"type": "str", "no_log": True},
        },
        required_if=[("state", "started", ("port", "password"))],
        supports_check_mode=True,
    )
    server = Server(module)
    result: dict[str, Any] = {"changed": bool(server.pid()) != (module.params["state"] == "started")}
    if result["changed"] and not module.check_mode:
        if module.params["state"] == "started":
            server.start()
        else:
            server.program("pg_ctl", "stop", "--pgdata", server.data, "--mode", "fast", "--wait", "--silent")
    module.exit_json(pid=server.pid(), **result)


if __name__ == "__main__":
    main()
