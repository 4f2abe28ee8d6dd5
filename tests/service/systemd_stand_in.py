"""systemctl and journalctl for the tests, without a systemd: systemd_stand_in.py systemctl|journalctl DIRECTORY ...

The directory has a file for each unit: its port, where it starts, what is said of it, and its process. One with
``always`` is started again when its process has ended, as Restart=always has it, and none more often than ``limit``
times in all, until that is forgotten.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

program, home, words = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:]


def alive(pid: int) -> bool:
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] not in "ZX"


def end(unit: dict[str, Any]) -> None:
    if alive(unit["pid"]):
        os.kill(unit["pid"], signal.SIGTERM)
    while alive(unit["pid"]):
        time.sleep(0.01)
    unit["pid"] = 0


def start(name: str, unit: dict[str, Any]) -> None:
    with (home / f"{name}.journal").open("ab") as journal:
        child = subprocess.Popen(
            [sys.executable, "server.py", str(unit["port"])],
            cwd=unit["directory"],
            stdin=subprocess.DEVNULL,
            stdout=journal,
            stderr=journal,
            start_new_session=True,
        )
    unit["pid"] = child.pid
    unit["starts"] = unit.get("starts", 0) + 1


def at_limit(unit: dict[str, Any]) -> bool:
    return bool(unit.get("limit")) and unit.get("starts", 0) >= unit["limit"]


def shown(name: str, unit: dict[str, Any]) -> tuple[str, str, int]:
    if unit["pid"] and not alive(unit["pid"]):
        if unit.get("always") and not at_limit(unit):
            start(name, unit)
            return "activating", "auto-restart", 0
        return "failed", "failed", 0
    return ("active", "running", unit["pid"]) if unit["pid"] else ("inactive", "dead", 0)


if program == "journalctl":
    (name,) = (word.partition("=")[2] for word in words if word.startswith("--unit="))
    sys.stdout.write((home / f"{name}.journal").read_text())
    sys.exit()
verb, names = words[0], words[words.index("--") + 1 :]
if (home / "silent").exists():
    sys.exit("Failed to connect to bus: No medium found")
with (home / "calls").open("a") as calls:
    calls.write(" ".join([verb, *names]) + "\n")
blocks = []
for name in names:
    file = home / f"{name}.json"
    unit = json.loads(file.read_text()) if file.exists() else {"pid": 0, "loaded": "not-found", "directory": ""}
    if verb != "show" and unit.get("denied"):
        sys.exit(f"Failed to {verb} {name}: Access denied")
    if verb == "reset-failed":
        unit["starts"] = 0
    if verb in ("restart", "stop"):
        end(unit)
    if verb == "restart" and at_limit(unit):
        file.write_text(json.dumps(unit))
        sys.exit(f"Job for {name} failed: start request repeated too quickly")
    if verb == "restart":
        start(name, unit)
    active, sub, pid = shown(name, unit)
    blocks.append(
        f"LoadState={unit.get('loaded', 'loaded')}\nActiveState={active}\nSubState={sub}\nMainPID={pid}\n"
        f"UnitFileState={unit.get('enabled', 'enabled')}\nWorkingDirectory={unit['directory']}\n"
        f"NeedDaemonReload={unit.get('outdated', 'no')}\nWantedBy={unit.get('wanted', '')}\nRequiredBy="
    )
    if file.exists():
        file.write_text(json.dumps(unit))
if verb == "show":
    print("\n\n".join(blocks))
