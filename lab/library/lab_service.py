#!/usr/bin/python
"""The lab's PM2 and the application under it: started and answering, or stopped."""

from __future__ import annotations

import http.client
import json
import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.lab_files import alive, remove, run

DOCUMENTATION = r"""
module: lab_service
short_description: Start and stop the lab's PM2 and its application
description:
  - PM2 has a directory, and so a daemon, of the lab's own. Of its environment only E(PATH), E(HOME) and E(PM2_HOME) are
    set, so what the application knows comes from its C(.env.production).
  - A started application is one that PM2 lists with every instance online, and whose answers are healthy, as many in a
    row as all instances take turns to give. Answers count when this very PM2 holds the port, as its daemon does in
    cluster mode, or one of its processes: a second lab may have taken it.
author: at-most-one maintainers
options:
  state:
    description: Whether the application runs. Stopping it also ends the PM2 daemon.
    type: str
    choices: [started, stopped]
    required: true
  clean:
    description: When stopped, also forget what PM2 has saved and logged.
    type: bool
    default: false
  path:
    description: The application's path, with its ecosystem file.
    type: path
    required: true
  url:
    description: The application's address.
    type: str
    required: true
  pm2_bin:
    description: The pm2 program.
    type: path
    required: true
  pm2_home:
    description: PM2's directory.
    type: path
    required: true
  search_path:
    description: E(PATH) for PM2 and the application.
    type: str
    required: true
  instances:
    description: How many instances have to answer.
    type: int
    default: 2
  timeout_s:
    description: How long they may take, in seconds.
    type: int
    default: 60
attributes:
  check_mode: {support: full, description: Says what would happen.}
  diff_mode: {support: none, description: There is nothing to show.}
"""

EXAMPLES = r"""
- name: Start the application
  lab_service:
    state: started
    path: "{{ lab_root }}/www/aedpics"
    url: http://127.0.0.1:13000
    pm2_bin: "{{ lab_root }}/bin/pm2"
    pm2_home: "{{ lab_root }}/pm2"
    search_path: /usr/bin:/bin
"""

RETURN = r"""
pids:
  description: The process ids of the instances, once they have answered.
  type: list
  returned: always
  sample: ["4711", "4712"]
"""

NAME = "aedpics"
POLL_S = 0.1
LISTENS = "0A"  # the state of a listening socket in /proc/net/tcp


def listeners(port: int) -> set[str]:
    """The processes that hold a socket which listens on this port, as far as their files may be read."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in _lines(Path("/proc/net") / name)[1:]]
    listening = [line for line in lines if line[3] == LISTENS and int(line[1].split(":")[1], 16) == port]
    sockets = {f"socket:[{line[9]}]" for line in listening}
    return (
        {path.parts[2] for path in Path("/proc").glob("[0-9]*/fd/*") if _target(path) in sockets} if sockets else set()
    )


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="ascii").splitlines() if path.exists() else []


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:  # it has ended meanwhile, or is somebody else's
        return ""


class Service:
    """PM2 as the lab uses it."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params
        self.home = Path(params["pm2_home"])
        self.output = ""
        self.stranger = ""
        self.environment = {
            "PATH": params["search_path"],
            "HOME": str(self.home),
            "PM2_HOME": str(self.home),
            "LANG": "C.UTF-8",
        }

    def daemon(self) -> int | None:
        """The daemon's process id, if it runs."""
        return alive(self.home / "pm2.pid", mark=self.home)

    def pm2(self, *arguments: str, cwd: Path | None = None) -> str:
        """Run pm2. Its exit code says little; callers look at what came out."""
        return run([self.params["pm2_bin"], *arguments], environment=self.environment, cwd=cwd or self.home).stdout

    def instances(self) -> dict[str, str]:
        """The instances in PM2's list: their process ids, and what it calls their status."""
        if not self.daemon():
            return {}
        output = self.pm2("jlist")
        # A banner may come before the list; every entry also holds secrets, so no more is kept.
        entries = json.loads(output[output.index("[{") :]) if "[{" in output else []
        return {str(one["pid"]): one["pm2_env"]["status"] for one in entries if one["name"] == NAME}

    def start(self) -> None:
        """Start the daemon and the instances; the link's path, not the release's, is what PM2 stores."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.daemon():
            self.pm2("delete", NAME)
        # The ecosystem file reads its settings from a path that is relative to this directory.
        self.output = self.pm2("start", "ecosystem.config.cjs", cwd=Path(self.params["path"]))

    def wait_for_answers(self) -> set[str]:
        """Ask for health until all instances are online and had several turns to answer. Returns their processes."""
        wanted = self.params["instances"]
        deadline = time.monotonic() + self.params["timeout_s"]
        while not self.find_stranger() and time.monotonic() < deadline:
            online = {pid for pid, status in self.instances().items() if status == "online"}
            if len(online) >= wanted and all(self.answers() for _ in range(4 * wanted)):
                return online
            time.sleep(POLL_S)
        return set()

    def find_stranger(self) -> str:
        """The pid of a process that holds the port and is not PM2's; empty without one. Keeps it in ``stranger``."""
        found = listeners(urlsplit(self.params["url"]).port or 80)
        self.stranger = "" if found & {str(self.daemon()), *self.instances()} else "".join(sorted(found)[:1])
        return self.stranger

    def answers(self) -> bool:
        """Whether an answer on a connection of its own is healthy."""
        address = urlsplit(self.params["url"])
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=5)
        try:
            connection.request("GET", "/api/health", headers={"Connection": "close"})
            response = connection.getresponse()
            return response.status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        """End the application, then the daemon."""
        self.pm2("kill")
        deadline = time.monotonic() + self.params["timeout_s"]
        while self.daemon() and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def forget(self) -> bool:
        """Remove what PM2 keeps between its lives."""
        return any([remove(entry) for entry in sorted(self.home.iterdir())]) if self.home.is_dir() else False


def answered_by_stranger(url: str, pid: str) -> str:
    """The error where another lab answers in this one's place, by the process ``pid``."""
    return (
        f"{url} is answered by process {pid}, which is not one of this lab's. Expected: an instance of its own PM2. "
        "Next: take the other lab down (make lab-down in its checkout) and repeat; or, for a port of its own, "
        "make lab-down here, remove .lab/lab.json and .lab/pg, make lab-up."
    )


def started(module: AnsibleModule, service: Service) -> dict[str, Any]:
    """Start it unless it runs; either way it has to answer."""
    instances = service.instances()
    if "online" in instances.values():
        if service.find_stranger():
            module.fail_json(msg=answered_by_stranger(module.params["url"], service.stranger))
        if not service.answers():
            module.fail_json(
                msg=f"The application runs but {module.params['url']}/api/health is not healthy. Expected: 200. "
                f"Next: read {module.params['path']}.logs/production.log, or go back to the start with make lab-reset."
            )
        return {"changed": False, "pids": []}
    if module.check_mode:
        return {"changed": True, "pids": []}
    service.start()
    pids = service.wait_for_answers()
    if service.stranger:
        module.fail_json(msg=answered_by_stranger(module.params["url"], service.stranger))
    if len(pids) < module.params["instances"]:
        log = Path(f"{module.params['path']}.logs/production.log")
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:] if log.exists() else []
        module.fail_json(
            msg=f"{len(pids)} of {module.params['instances']} instances answered within {module.params['timeout_s']} s."
            f" Next: read {log}. Its end: {' | '.join(tail) or service.output[-400:]}"
        )
    return {"changed": True, "pids": sorted(pids)}


def stopped(module: AnsibleModule, service: Service) -> dict[str, Any]:
    """Stop the daemon if it runs."""
    running = service.daemon() is not None
    changed = running
    if not module.check_mode:
        if running:
            service.stop()
        if service.daemon():
            module.fail_json(msg=f"PM2 ({service.daemon()}) did not end within {module.params['timeout_s']} s.")
        if module.params["clean"]:
            changed = service.forget() or changed
    return {"changed": changed, "pids": []}


def main() -> None:
    """The module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["started", "stopped"], "required": True},
            "clean": {"type": "bool", "default": False},
            "path": {"type": "path", "required": True},
            "url": {"type": "str", "required": True},
            "pm2_bin": {"type": "path", "required": True},
            "pm2_home": {"type": "path", "required": True},
            "search_path": {"type": "str", "required": True},
            "instances": {"type": "int", "default": 2},
            "timeout_s": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    act = started if module.params["state"] == "started" else stopped
    module.exit_json(**act(module, Service(module.params)))


if __name__ == "__main__":
    main()
