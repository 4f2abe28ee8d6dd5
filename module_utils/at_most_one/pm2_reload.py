"""Reload one instance at a time, and believe nothing: the first one that is not provably new stops the rest.

``pm2 reload`` kills the old process on ready, on listening **or on timeout**, and returns 0 with a tick in every case
(PM2's lib/God/Reload.js). With one instance at a time the others keep serving whatever happens to it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from .applog import log_sizes
from .errors import OperatorError
from .pm2 import Instance, Listing, Pm2, declared, executable_version, listing, run, version_tuple
from .pm2_bus import Overheard
from .pm2_proof import Demand, Unproven, already_proven, as_result, error_lines, hear_only_new, prove
from .processes import start_ticks, working_directory

# A process that crashes or is silent is worth nothing to the users, and takes its share of the requests.
_ISOLATE = ("crashed", "no_answer")


@dataclass(frozen=True)
class Aim:
    """What to reload, and how sure to be. ``path`` is the application's path: the link, or the directory in place."""

    demand: Demand
    path: str
    ecosystem: str
    min_instances: int = 2
    min_version: str = "7.0.4"
    log_lines: int = 20


def preflight(pm2: Pm2, aim: Aim, *, linked: bool) -> Listing:
    """The instances, when a reload one by one can work on them; OperatorError names what stands against it.

    With ``linked`` the application's path must already lead to the release, as it does when the reload is for real.
    """
    name = aim.demand.name
    deadline = time.monotonic() + aim.demand.instance_timeout_s
    found = listing(pm2, name)
    while found.parked and time.monotonic() < deadline:
        time.sleep(0.5)  # an interrupted reload: PM2 ends it by itself after listen_timeout
        found = listing(pm2, name)
    require_running(pm2, found, name)
    in_memory = found.daemon.version if found.daemon else None
    versions = {"the daemon in memory": in_memory, "on disk": executable_version(pm2)}
    for where, version in versions.items():
        if version_tuple(version) < version_tuple(aim.min_version):
            raise OperatorError(
                f"PM2 ({where}) is {version or 'of an unknown version'}.",
                expected=f"{aim.min_version} or newer: before it a reload can leave a worker with old code in no list.",
                next_step="install that version (npm install -g pm2), then run `pm2 update` as the application's user: "
                "it restarts every application of that user, so announce it.",
                version=version,
            )
    _require_definition(pm2, aim, found, linked=linked)
    return found


def require_running(pm2: Pm2, found: Listing, name: str) -> None:
    """Raises OperatorError unless PM2 lists an instance of ``name`` and no reload is under way."""
    if found.daemon is None or not found.instances:
        others = f"; it runs {', '.join(found.others)}" if found.others else ""
        raise OperatorError(
            f"There is no PM2 daemon in {pm2.home}."
            if found.daemon is None
            else f"PM2 in {pm2.home} has no application {name}{others}.",
            expected=f"{name}, started by the user that this task runs as.",
            next_step="check app_name, pm2_home and become_user; on a new host start it (pm2_app, state: started).",
            others=list(found.others),
        )
    if found.parked:
        raise OperatorError(
            f"A reload of {name} is under way: PM2 still holds {', '.join(found.parked)}.",
            expected="no other reload.",
            next_step="wait for it to end, and find out who started it.",
        )


def _require_definition(pm2: Pm2, aim: Aim, found: Listing, *, linked: bool) -> None:
    name, instances = aim.demand.name, found.instances

    def refuse(seen: str, expected: str, next_step: str) -> NoReturn:
        raise OperatorError(seen, expected=expected, next_step=next_step, application=name)

    start_anew = (
        f"in a window of its own: `pm2 delete {name} && pm2 start {aim.ecosystem} --only {name} && pm2 save`; "
        "a reload never applies a changed definition."
    )
    forked = [one.pm_id for one in instances if one.exec_mode != "cluster_mode"]
    if forked:
        refuse(
            f"Instances {_ids(forked)} of {name} run in fork mode.",
            "cluster mode: in fork mode a reload is a restart, and users get connection errors.",
            f"set exec_mode: 'cluster' in the ecosystem file, then {start_anew}",
        )
    if len(instances) < aim.min_instances:
        refuse(
            f"{name} has {len(instances)} instance{'s' * (len(instances) > 1)}.",
            f"{aim.min_instances} or more: the others serve while one is reloaded.",
            f"set instances: {aim.min_instances} in the ecosystem file, then {start_anew}",
        )
    if not linked:
        return
    release = aim.demand.release_path
    if release and os.path.realpath(aim.path) != release:
        refuse(f"{aim.path} leads to {os.path.realpath(aim.path)}.", f"{release}.", "switch the link first.")
    frozen = [one.pm_id for one in instances if release and not _inside(os.path.realpath(one.pm_cwd), release)]
    if frozen:
        where = next(one.pm_cwd for one in instances if one.pm_id in frozen)
        refuse(
            f"PM2 would start instances {_ids(frozen)} of {name} in {where}, whatever {aim.path} leads to.",
            f"{aim.path} as the directory that PM2 remembers.",
            f"set cwd: '{aim.path}' in the ecosystem file, then {start_anew}",
        )
    want = declared(pm2, aim.ecosystem, name)
    if want is None:
        refuse(f"{aim.ecosystem} declares no application {name}.", "one.", "correct app_name or the ecosystem file.")
    base = os.path.join(aim.path, str(want.get("cwd") or ""))
    script = os.path.realpath(os.path.join(base, str(want.get("script") or "")))
    other = [one.script for one in instances if os.path.realpath(one.script) != script]
    if other:
        refuse(f"PM2 runs {other[0]}, the ecosystem file says {script}.", "the same script.", start_anew)
    count = want.get("instances")
    if isinstance(count, int) and count > 0 and count != len(instances):
        refuse(
            f"PM2 runs {len(instances)} instances of {name}, the ecosystem file says {count}.",
            "the same number.",
            start_anew,
        )


def reload(pm2: Pm2, aim: Aim, *, only: Sequence[int] | None = None, check: bool = False) -> dict[str, Any]:
    """Bring every instance, or ``only`` those, to the release, one at a time; OperatorError at the first failure.

    Instances already proven are left alone. In check mode nothing is reloaded and the result says what would be.
    """
    found = preflight(pm2, aim, linked=not check)
    total = len(found.instances)
    missing = sorted(set(only or ()) - {one.pm_id for one in found.instances})
    if missing:
        raise OperatorError(
            f"PM2 has no instances {_ids(missing)} of {aim.demand.name}.",
            expected=f"some of {_ids([one.pm_id for one in found.instances])}.",
            next_step="compare with `pm2 list`; somebody deleted or started instances meanwhile.",
        )
    wanted = [one for one in found.instances if only is None or one.pm_id in only]
    due = [one for one in wanted if not already_proven(aim.demand, one, total)]
    due.sort(key=lambda one: (one.online, one.pm_id))  # what is down goes first: it can only become better
    daemon_log = os.path.join(pm2.home, "pm2.log")
    offsets = log_sizes(path for one in found.instances for path in (one.out_log, one.err_log))
    result: dict[str, Any] = {
        "changed": bool(due),
        "unchanged": [one.pm_id for one in wanted if one not in due],
        "log_offsets": offsets,
        "diff": {
            "before": "".join(f"{_line(one.pm_id, one.pid, working_directory(one.pid))}\n" for one in due),
            "after": "".join(f"{_line(one.pm_id, None, aim.demand.release_path)}\n" for one in due),
        },
    }
    if check:
        return {**result, "instances": [as_result(one, None) for one in due]}
    since = {**offsets, **log_sizes([daemon_log])}
    done: list[tuple[Instance, Instance]] = []
    with Overheard(pm2) as heard:
        for before in due:
            try:
                _require_sibling(listing(pm2, aim.demand.name), before)
                _reload_one(pm2, aim, before.pm_id)
                done.append((before, prove(pm2, aim.demand, before, total)))
            except Unproven as unproven:
                _fail(pm2, aim, unproven, before, done, heard, since)
        now = listing(pm2, aim.demand.name).instances
        suspect = _died_meanwhile(done, now) or _elsewhere(aim, now)
        try:
            if suspect:
                raise suspect[1]
            hear_only_new(aim.demand, total)
        except Unproven as unproven:
            _fail(pm2, aim, unproven, suspect[0] if suspect else now[-1], done, heard, since)
    return {**result, "instances": [as_result(before, after) for before, after in done]}


def _died_meanwhile(
    done: Sequence[tuple[Instance, Instance]], now: Sequence[Instance]
) -> tuple[Instance, Unproven] | None:
    restarts = {one.pm_id: one.restarts for one in now}
    for _before, after in done:
        if start_ticks(after.pid) is None or restarts.get(after.pm_id) != after.restarts:
            return after, Unproven("crashed", f"pid {after.pid} died while the next instances were reloaded")
    return None


def _elsewhere(aim: Aim, now: Sequence[Instance]) -> tuple[Instance, Unproven] | None:
    for one in now:
        if aim.demand.release_path and (cwd := working_directory(one.pid)) != aim.demand.release_path:
            return one, Unproven("wrong_directory", f"pid {one.pid} works in {cwd}")
    return None


def _require_sibling(found: Listing, before: Instance) -> None:
    """An instance that serves may only be reloaded while another one serves too."""
    others = [one for one in found.instances if one.pm_id != before.pm_id]
    if before.online and not any(one.online for one in others):
        raise Unproven("pm2_refused", "not reloaded: no other instance is online to serve meanwhile")


def _reload_one(pm2: Pm2, aim: Aim, pm_id: int) -> None:
    deadline = time.monotonic() + aim.demand.instance_timeout_s
    while True:
        done = run(pm2, "reload", str(pm_id), timeout_s=aim.demand.instance_timeout_s + 60)
        # PM2's lock lasts 30 s when whoever took it was killed (lib/Common.js, lockReload).
        if "already in progress" not in done.stdout + done.stderr:
            return
        if time.monotonic() > deadline:
            raise Unproven("pm2_refused", "PM2 says that another reload is in progress")
        time.sleep(1)


def _fail(
    pm2: Pm2,
    aim: Aim,
    unproven: Unproven,
    failed: Instance,
    done: Sequence[tuple[Instance, Instance]],
    heard: Overheard,
    offsets: dict[str, int],
) -> NoReturn:
    name = aim.demand.name
    lines = error_lines(pm2, name, failed, heard, offsets, aim.log_lines)
    others = [one for one in listing(pm2, name).instances if one.pm_id != failed.pm_id]
    serving = [one.pm_id for one in others if one.online]
    isolated = unproven.cause in _ISOLATE and bool(serving)
    if isolated:
        run(pm2, "stop", str(failed.pm_id))
    reloaded = [before.pm_id for before, _after in done]
    back = sorted({*reloaded, failed.pm_id})
    raise OperatorError(
        f"Instance {failed.pm_id} of {name} is not provably new ({unproven.cause}): {unproven.seen}."
        + (f" Its log says: {_telling(lines)}" if lines else ""),
        expected=f"a new process that stays up for {aim.demand.stable_s:g} s, works in {aim.demand.release_path} and "
        f"answers with build {aim.demand.probe.build if aim.demand.probe else 'unasked'}.",
        next_step=f"instances {_ids(serving) or 'none'} serve. The deployment takes the link and {_ids(back)} "
        "back by itself; then mend what the error lines name.",
        failed={
            "pm_id": failed.pm_id,
            "cause": unproven.cause,
            "seen": unproven.seen,
            "error_lines": lines,
            "isolated": isolated,
        },
        reloaded=reloaded,
        serving=serving,
    )


def _telling(lines: Sequence[str]) -> str:
    """The line to show when there is room for one: the last that names an error, or the last."""
    errors = [line for line in lines if "Error" in line and not line.lstrip().startswith("at ")]
    return (errors or list(lines))[-1].strip()


def _inside(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory}{os.sep}")


def _ids(pm_ids: Sequence[int]) -> str:
    return ", ".join(map(str, pm_ids))


def _line(pm_id: int, pid: int | None, directory: str | None) -> str:
    return f"instance {pm_id}: pid {pid or 'new'}, {directory or 'nowhere'}"
