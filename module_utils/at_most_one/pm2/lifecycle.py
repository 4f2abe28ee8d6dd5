"""The two ends of an application's life under PM2: its first start, and what a reboot brings back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import OperatorError
from ..findings import observed, say
from ..http.proof import Unproven
from ..system.redaction import redact
from .bus import Overheard
from .client import Pm2, daemon_of, listing, parse_jlist, run
from .ecosystem import declared
from .preflight import Aim, require_running
from .proof import error_lines, prove


def start(pm2: Pm2, aim: Aim, *, check: bool = False) -> bool:
    """Start the application from its ecosystem file unless an instance of it runs. Returns whether it was started.

    Raises OperatorError when it does not come up.
    """
    name = aim.demand.name
    if any(one.online or one.status == "launching" for one in listing(pm2, name).instances):
        return False
    want = declared(pm2, aim.ecosystem, name)
    if want is None:
        raise OperatorError(
            observed("AMO-4208", "{ecosystem} declares no application {name}.", ecosystem=aim.ecosystem, name=name),
            expected=say("an entry of module.exports.apps with name: '{name}'.", name=name),
            next_step=say("correct app_name or the ecosystem file."),
        )
    if check:
        return True
    # PM2 takes its own working directory when the file names none, and that one has its symlinks resolved: the
    # application would stay in today's release for ever.
    where = () if want.get("cwd") else ("--cwd", aim.path)
    if daemon_of(pm2) is None:
        run(pm2, "ping")  # starts the daemon, so that its bus can be listened to from the first moment
    command = ("start", aim.ecosystem, "--only", name, *where)
    with Overheard(pm2) as heard:
        done = run(pm2, *command, cwd=aim.path, timeout_s=aim.demand.instance_timeout_s + 60)
        found = listing(pm2, name)
        if not found.instances:
            said = [line for line in redact(done.stdout + done.stderr).splitlines() if "ERROR" in line]
            raise OperatorError(
                observed("AMO-4209", "PM2 did not start {name}{said}.", name=name, said=": " + said[0] if said else ""),
                expected=say("its instances in PM2's list."),
                next_step=say(
                    "read {home}/pm2.log, and by hand run `cd {path} && pm2 start {ecosystem} --only {name}`.",
                    home=pm2.home,
                    path=aim.path,
                    ecosystem=aim.ecosystem,
                    name=name,
                ),
            )
        for instance in found.instances:
            try:
                # There was no process before this one.
                prove(pm2, aim.demand, replace(instance, pid=0, status="stopped"), len(found.instances))
            except Unproven as unproven:
                lines = error_lines(pm2, name, instance, heard, {})
                raise OperatorError(
                    observed(
                        "AMO-4210",
                        "Instance {pm_id} of {name} did not come up ({cause}): {seen}.",
                        pm_id=instance.pm_id,
                        name=name,
                        cause=unproven.cause,
                        seen=unproven.seen,
                    ),
                    expected=say("a process that stays up for {stable_s} s.", stable_s=f"{aim.demand.stable_s:g}"),
                    next_step=say("read the error lines here or {err_log}.", err_log=instance.err_log),
                    failed={"pm_id": instance.pm_id, "cause": unproven.cause, "error_lines": lines},
                ) from unproven
    return True


def save(pm2: Pm2, name: str, *, check: bool = False) -> bool:
    """Make what runs now come back after a reboot. Returns whether PM2's dump said something else before.

    The dump covers every application of this PM2_HOME. What is compared is which instances start where and how, and
    with which variables those of ``name`` do.
    """
    found = listing(pm2, name)
    require_running(pm2, found, name)
    down = [one.pm_id for one in found.instances if not one.online]
    if down:
        raise OperatorError(
            observed(
                "AMO-4211", "Instances {down} of {name} are not online.", down=", ".join(map(str, down)), name=name
            ),
            expected=say("all of them: a reboot brings back what is saved."),
            next_step=say("reload or start them first."),
        )
    entries = parse_jlist(run(pm2, "jlist").stdout) or []
    now = _definition([entry.get("pm2_env") or {} for entry in entries], name)
    if _dumped(pm2, name) == now:
        return False
    if not check:
        run(pm2, "save")
        if _dumped(pm2, name) != now:
            raise OperatorError(
                observed("AMO-4212", "pm2 save did not write what runs into {home}/dump.pm2.", home=pm2.home),
                expected=say("the same applications, directories and scripts."),
                next_step=say(
                    "check that the disk is not full and that the file belongs to this user; `pm2 save` by hand."
                ),
            )
    return True


def _dumped(pm2: Pm2, name: str) -> list[list[str]] | None:
    try:
        with open(os.path.join(pm2.home, "dump.pm2"), encoding="utf-8") as file:
            entries = json.load(file)
    except (OSError, ValueError):
        return None
    return _definition(entries, name) if isinstance(entries, list) else None


def _definition(entries: Sequence[Mapping[str, Any]], name: str) -> list[list[str]]:
    fields = ("name", "pm_cwd", "pm_exec_path", "exec_mode", "status")
    return sorted(
        [*(str(entry.get(field)) for field in fields), _variables(entry) if entry.get("name") == name else ""]
        for entry in entries
    )


def _variables(entry: Mapping[str, Any]) -> str:
    """Without those in lower case: PM2 puts a new ``unique_id`` among them at every cold start."""
    held = entry.get("env") or {}
    return json.dumps({key: value for key, value in held.items() if key == key.upper()}, sort_keys=True)
