"""What the monitor reads on a host: the commit, the instances of a real PM2, and what a reboot would bring back."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

from at_most_one.pm2 import lifecycle

from tests.service.conftest import App

RunModule = Callable[..., dict[str, Any]]


def test_a_host_is_read_without_a_change_of_what_is_saved(app: App, run_module: RunModule) -> None:
    release = app.release("a" * 40)
    for arguments in (
        ("init", "-q"),
        ("add", "."),
        ("-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "t"),
    ):
        subprocess.run(["git", "-C", release, *arguments], check=True)
    head = subprocess.run(["git", "-C", release, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    app.start(release)
    given = {"path": str(app.path), "name": app.name, "pm2": app.pm2.executable, "pm2_home": app.pm2.home}

    found = run_module("monitor_host_info", given)
    assert (found["commit"], found["real_path"]) == (head.stdout.strip(), str(release))
    assert found["modified"] == []
    assert [one["status"] for one in found["pm2"]["instances"]] == ["online"] * len(app.instances())
    assert found["saved"] is False
    assert run_module("monitor_host_info", given)["saved"] is False, "it has saved nothing"

    lifecycle.save(app.pm2, app.name)
    (release / "behaviour.json").write_text("{}")
    found = run_module("monitor_host_info", given)
    assert found["saved"] is True
    assert [line.split()[-1] for line in found["modified"]] == ["behaviour.json"]


def test_what_is_not_there_ends_nothing(app: App, run_module: RunModule) -> None:
    given = {"path": "/nowhere", "name": app.name, "pm2": "/nowhere/pm2", "pm2_home": app.pm2.home}
    found = run_module("monitor_host_info", given)
    assert not found.get("failed")
    assert (found["commit"], found["real_path"], found["modified"]) == ("", "", [])
    assert found["saved"] is None
    assert found["pm2"]["msg"].startswith("/nowhere/pm2 cannot be run: No such file or directory. Expected: ")
