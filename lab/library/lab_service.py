#!/usr/bin/python
"""The lab's PM2 and the application under it: started and answering, or stopped."""

from __future__ import annotations

import http.client
import json
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
    set, so what the application knows comes from its C(.env).
  - A started application is one of which every instance has answered that it is healthy. An answer counts when it comes
    from a process of this very PM2: a second lab may have taken the port.
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
  description: The process ids that have answered.
  type: list
  returned: always
  sample: ["4711", "4712"]
"""

NAME = "aedpics"
POLL_S = 0.1


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

    def pm2(self, *arguments: str) -> str:
        """Run pm2. Its exit code says little; callers look at what came out."""
        return run([self.params["pm2_bin"], *arguments], environment=self.environment, cwd=self.home).stdout

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
        self.output = self.pm2("start", str(Path(self.params["path"]) / "ecosystem.config.cjs"))

    def wait_for_answers(self) -> set[str]:
        """Ask for health until every instance has said that it is well. Returns the processes that did."""
        wanted, pids = self.params["instances"], set[str]()
        deadline = time.monotonic() + self.params["timeout_s"]
        while len(pids) < wanted and time.monotonic() < deadline:
            pid = self.answer()
            if pid and pid not in pids and pid not in self.instances():
                self.stranger = pid
                break
            if pid:
                pids.add(pid)
            else:
                time.sleep(POLL_S)
        return pids

    def answer(self) -> str:
        """The process behind one healthy answer on a connection of its own, or nothing."""
        address = urlsplit(self.params["url"])
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=5)
        try:
            connection.request("GET", "/api/health", headers={"Connection": "close"})
            response = connection.getresponse()
            return response.getheader("x-app-pid", "") if response.status == http.HTTPStatus.OK else ""
        except (OSError, http.client.HTTPException):
            return ""
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


def stranger(url: str, pid: str) -> str:
    """What is said when another lab answers in this one's place."""
    return (
        f"{url} is answered by process {pid}, which is not one of this lab's. Expected: an instance of its own PM2. "
        "Next: take the other lab down (make lab-down in its checkout) and repeat; or, for a port of its own, "
        "make lab-down here, remove .lab/lab.json and .lab/pg, make lab-up."
    )


def started(module: AnsibleModule, service: Service) -> dict[str, Any]:
    """Start it unless it runs; either way it has to answer."""
    instances = service.instances()
    if "online" in instances.values():
        pid = service.answer()
        if pid and pid not in instances:
            module.fail_json(msg=stranger(module.params["url"], pid))
        if not pid:
            module.fail_json(
                msg=f"The application runs but {module.params['url']}/api/health is not healthy. Expected: 200. "
                f"Next: look into {module.params['path']}.logs/error.log, or go back to the start with make lab-reset."
            )
        return {"changed": False, "pids": []}
    if module.check_mode:
        return {"changed": True, "pids": []}
    service.start()
    pids = service.wait_for_answers()
    if service.stranger:
        module.fail_json(msg=stranger(module.params["url"], service.stranger))
    if len(pids) < module.params["instances"]:
        log = Path(f"{module.params['path']}.logs/error.log")
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
