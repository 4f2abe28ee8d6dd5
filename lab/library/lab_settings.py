#!/usr/bin/python
"""Choose the lab's ports, names and passwords once, remember them, and tell everybody."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import secrets
import shlex
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.lab_files import alive, write_private

DOCUMENTATION = r"""
module: lab_settings
short_description: Choose and remember the lab's ports, paths, names and passwords
description:
  - The first run chooses free ports and random passwords. Every later run keeps them.
  - The ports follow from the checkout's path, so that two checkouts whose labs come up at the same moment want
    different ones.
  - Without C(lab.json) a database server's directory is of no use, since its passwords are lost. The module then fails.
  - Writes C(lab.json) for programs and C(lab.env) for shells, both readable by their owner only.
author: at-most-one maintainers
options:
  root:
    description: The lab's own directory, C(.lab) of the checkout.
    type: path
    required: true
  commit_before:
    description: The commit that the service runs before the deployment.
    type: str
    required: true
  commit_after:
    description: The commit that is deployed.
    type: str
    required: true
  node_bin:
    description: The Node.js executable.
    type: path
    required: true
  postgres_bin:
    description: The directory of PostgreSQL's programs.
    type: path
    required: true
  surplus:
    description: How many surplus sessions the example has. V(0) keeps what it has, and is V(25) at first.
    type: int
    default: 0
  beside:
    description:
      - The C(lab.json) of a lab. What is made is a second environment beside it, with a path, a port, a PM2 and a
        database of its own on the same server, from the same origin and with the same people.
    type: path
  reset:
    description: The lab is about to be made afresh, so it does not matter what it was made of before.
    type: bool
    default: false
attributes:
  check_mode: {support: full, description: Chooses and writes nothing down.}
  diff_mode: {support: none, description: The files hold passwords.}
"""

EXAMPLES = r"""
- name: Choose the settings
  lab_settings:
    root: "{{ lab_root }}"
    commit_before: "{{ lab_origin.before }}"
    commit_after: "{{ lab_origin.after }}"
    node_bin: /usr/bin/node
    postgres_bin: /usr/lib/postgresql/15/bin
"""

RETURN = r"""
surplus_before:
  description: How many surplus sessions the example had until now. V(0) when there was no example.
  type: int
  returned: always
  sample: 25
before_is_built:
  description: Whether a finished build of O(commit_before) is there.
  type: bool
  returned: always
  sample: true
"""

EXAMPLE_SURPLUS = 25
# A UNIX socket's path has at most 107 bytes; PM2 adds /interactor.sock or shorter.
SOCKET_LIMIT = 107 - len("/interactor.sock")
# The first of the ports that a checkout may prefer, and how many there are; below the kernel's own (32768 and above).
APP_PORTS, DATABASE_PORTS, PORTS = 13000, 15432, 2000
ORPHANED = (
    "{memory} is not there, and {data} was made with its passwords. Expected: both, or neither. "
    "Next: put it back; or {stop}rm -rf {data} and make lab-up: a lab as at first; what its database held is gone."
)
PEOPLE = {"admin": "master@aedpics.lab", "inspector": "inspector@aedpics.lab", "other": "other@aedpics.lab"}


def free_port(preferred: int, taken: set[int]) -> int:
    """The first free loopback port of a small range that starts at the preferred one, else any free one."""
    for port in [*range(preferred, preferred + 50), 0]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            chosen: int = probe.getsockname()[1]
            if chosen not in taken:
                return chosen
    raise OSError("no free port on 127.0.0.1")


def preferred_port(root: Path, first: int) -> int:
    """The port of a range that this checkout asks for first. A free port is taken only once its server runs."""
    return first + int(hashlib.sha256(os.fsencode(root)).hexdigest()[:8], 16) % PORTS


def pm2_home(root: Path) -> Path:
    """PM2's directory: the lab's own, or a short one when its sockets' paths would be too long there."""
    inside = root / "pm2"
    if len(os.fsencode(inside)) <= SOCKET_LIMIT:
        return inside
    name = f"at-most-one-{os.getuid()}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:8]}"
    short = next(
        (d for d in (Path(tempfile.gettempdir()) / name, Path("/tmp") / name) if len(os.fsencode(d)) <= SOCKET_LIMIT),  # noqa: S108 (the last resort; the directory below is ours and private)
        None,
    )
    if short is None:
        raise OSError("no directory is short enough for PM2's sockets")
    short.mkdir(mode=0o700, exist_ok=True)
    owner = short.lstat()
    if short.is_symlink() or owner.st_uid != os.getuid() or owner.st_mode & 0o077:
        raise OSError(f"{short} is not a private directory of {getpass.getuser()}")
    return short


def chosen(root: Path) -> Iterator[tuple[str, Any]]:
    """What is chosen once and then kept."""
    database_port = free_port(preferred_port(root, DATABASE_PORTS), set())
    app_port = free_port(preferred_port(root, APP_PORTS), {database_port})
    yield "database_port", database_port
    yield "app_port", app_port
    yield "pm2_home", str(pm2_home(root))
    for name in ("superuser", "database", *PEOPLE):
        yield f"{name}_password", secrets.token_urlsafe(15)
    for name in ("cron_token", "nextauth_secret"):
        yield name, secrets.token_urlsafe(24)
    yield "path", f"{root / 'bin'}:{os.environ.get('PATH', os.defpath)}"


def complete(root: Path, kept: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The whole of lab.json from what was chosen and what follows from it."""
    app_path = root / "www" / "aedpics"
    where = f"127.0.0.1:{kept['database_port']}/aedpics_lab"
    # The schema goes through libpq's options, so that psql and psycopg2 take this URL as well as the application does.
    url = f"postgresql://aedpics_admin:{kept['database_password']}@{where}?options=-csearch_path%3Daedpics"
    return {
        **kept,
        "surplus": params["surplus"] or kept.get("surplus") or EXAMPLE_SURPLUS,
        "database_host": "127.0.0.1",
        "database_name": "aedpics_lab",
        "database_user": "aedpics_admin",
        "database_schema": "aedpics",
        "database_sslmode": "disable",
        "database_url": url,
        "superuser_name": "postgres",
        "postgres_bin": params["postgres_bin"],
        "postgres_data": str(root / "pg"),
        "app_url": f"http://127.0.0.1:{kept['app_port']}",
        "app_path": str(app_path),
        "app_log": f"{app_path}.logs/production.log",
        "app_origin": str(root / "origin" / "aedpics.git"),
        "app_branch": "main",
        "commit_before": params["commit_before"],
        "commit_after": params["commit_after"],
        "before_build": str(root / "cache" / params["commit_before"]),
        "pm2_bin": str(root / "bin" / "pm2"),
        "node_bin": params["node_bin"],
        "bin_path": str(root / "bin"),
        **{f"{name}_email": email for name, email in PEOPLE.items()},
        "canary_serial": "11-0000001",
    }


def second(own: dict[str, Any], lab: dict[str, Any]) -> dict[str, Any]:
    """A second environment beside ``lab``: of its ``own`` it has what serves, and a database; the rest they share."""
    names = ("app_port", "pm2_home", "cron_token", "nextauth_secret", "app_url", "app_path", "app_log")
    name = "aedpics_staging"
    url = lab["database_url"].replace(f"/{lab['database_name']}?", f"/{name}?")
    return {**lab, **{key: own[key] for key in names}, "database_name": name, "database_url": url}


def shell_text(settings: dict[str, Any]) -> str:
    """lab.env: the same names in upper case, quoted. PATH keeps what the reader's shell has."""
    lines = ["# The lab's settings for shells: `. .lab/lab.env`. Written by make lab-up, and only there."]
    lines += [f"export {name.upper()}={shlex.quote(str(value))}" for name, value in settings.items() if name != "path"]
    lines.append(f'export PATH={shlex.quote(settings["bin_path"])}:"$PATH"')
    return "\n".join(lines) + "\n"


def main() -> None:
    """The module."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "commit_before": {"type": "str", "required": True},
            "commit_after": {"type": "str", "required": True},
            "node_bin": {"type": "path", "required": True},
            "postgres_bin": {"type": "path", "required": True},
            "surplus": {"type": "int", "default": 0},
            "beside": {"type": "path"},
            "reset": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    root = Path(module.params["root"])
    if 0 < module.params["surplus"] < EXAMPLE_SURPLUS:
        module.fail_json(
            msg=f"LAB_SURPLUS={module.params['surplus']}: the guide's example has {EXAMPLE_SURPLUS} surplus sessions. "
            f"Expected: {EXAMPLE_SURPLUS} or more. Next: make lab-up LAB_SURPLUS={EXAMPLE_SURPLUS}"
        )
    memory = root / "lab.json"
    known: dict[str, Any] = json.loads(memory.read_text(encoding="utf-8")) if memory.exists() else {}
    data = root / "pg"
    if not known and (data / "PG_VERSION").exists():
        server = alive(data / "postmaster.pid", mark=data)
        stop = f"kill -INT {server}, then " if server else ""
        module.fail_json(msg=ORPHANED.format(memory=memory, data=data, stop=stop))
    try:
        kept = known or dict(chosen(root))
    except OSError as failure:
        module.fail_json(msg=f"The lab cannot settle in {root}: {failure}.")
    settings = complete(root, kept, module.params)
    if module.params["beside"]:
        settings = second(settings, json.loads(Path(module.params["beside"]).read_text(encoding="utf-8")))
    if not Path(settings["pm2_home"]).is_relative_to(root):
        module.warn(f"PM2's sockets would have too long a path in {root}: they are in {settings['pm2_home']}.")
    if (
        not module.params["reset"]
        and known.get("commit_before", settings["commit_before"]) != settings["commit_before"]
    ):
        module.warn("The lab's application has changed since this lab was made: make lab-reset takes it up.")
    changed = settings != known
    if not module.check_mode:
        # The environment file first: lab.json is what says that both are there.
        changed = write_private(root / "lab.env", shell_text(settings)) or changed
        write_private(memory, json.dumps(settings, indent=2) + "\n")
    module.exit_json(
        changed=changed,
        surplus_before=known.get("surplus", 0),
        before_is_built=Path(settings["before_build"]).is_dir(),
    )


if __name__ == "__main__":
    main()
