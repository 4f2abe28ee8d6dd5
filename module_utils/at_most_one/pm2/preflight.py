"""What stands against a reload one by one: every trap has a message of its own, and nothing is touched."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ..errors import OperatorError
from ..findings import observed, say
from ..http.proof import Demand
from ..system.processes import children, working_directory
from .client import Instance, Listing, Pm2, executable_version, listing, version_tuple
from .ecosystem import Drift, declared, declared_by_others, drift

_RELOAD_LOCK_S = 30
_STARTING_S = 3.0  # a worker that PM2 is just starting is in its list by then


@dataclass(frozen=True)
class Aim:
    """What to reload, and how sure to be. ``path`` is the application's path: the link, or the directory in place."""

    demand: Demand
    path: str
    ecosystem: str
    min_instances: int = 2
    min_version: str = "7.0.4"


@dataclass(frozen=True)
class Ready:
    """What can be reloaded: the instances, where PM2 holds other variables than are declared, and what is declared."""

    found: Listing
    outdated: Mapping[int, Drift] = field(default_factory=dict)
    declared: Mapping[str, Any] = field(default_factory=dict, repr=False)
    others: Sequence[Mapping[str, Any]] = field(default=(), repr=False)  # what other releases' files declare

    def environment(self, pm_id: int) -> dict[str, Any]:
        """The variables that an outdated instance is to have: what it holds, with what is declared."""
        drift = self.outdated[pm_id]
        return {**drift.kept, **((self.declared.get("env") or {}) if drift.variables else {})}


def preflight(pm2: Pm2, aim: Aim, *, linked: bool) -> Ready:
    """The instances, when a reload one by one can work on them; OperatorError names what stands against it.

    With ``linked`` the application's path must already lead to the release, as it does when the reload is for real.
    """
    name = aim.demand.name
    found = _settled(pm2, aim)
    require_running(pm2, found, name)
    in_memory = found.daemon.version if found.daemon else None
    versions = {say("the daemon in memory"): in_memory, say("on disk"): executable_version(pm2)}
    for where, version in versions.items():
        if version_tuple(version) < version_tuple(aim.min_version):
            raise OperatorError(
                observed(
                    "AMO-4213",
                    "PM2 ({where}) is {version}.",
                    where=where,
                    version=version or say("of an unknown version"),
                ),
                expected=say(
                    "{min_version} or newer: before it a reload can leave a worker with old code in no list.",
                    min_version=aim.min_version,
                ),
                next_step=say(
                    "install that version (npm install -g pm2), then run `pm2 update` as the application's "
                    "user: it restarts every application of that user, so announce it."
                ),
                version=version,
            )
    _require_definition(aim, found)
    _require_patience(aim, found)
    if linked:
        return _require_declared(pm2, aim, found)
    if frozen := [one for one in found.instances if not _leads_through(one.pm_cwd, _place(aim.path))]:
        _refuse_frozen(aim, frozen)
    return Ready(found)


def require_declared(pm2: Pm2, aim: Aim, release: str) -> None:
    """Raise OperatorError where a reload would not apply what the ecosystem file of ``release`` declares.

    Nothing leads to that release yet: after the switch, all that was done would have to be taken back for it.
    """
    found = listing(pm2, aim.demand.name)
    require_running(pm2, found, aim.demand.name)
    _require_declared(pm2, aim, found, release)


def require_running(pm2: Pm2, found: Listing, name: str) -> None:
    """Raises OperatorError unless PM2 lists an instance of ``name``."""
    if found.daemon is None or not found.instances:
        others = say("; it runs {others}", others=", ".join(found.others)) if found.others else ""
        raise OperatorError(
            (
                observed("AMO-4214", "There is no PM2 daemon in {home}.", home=pm2.home)
                if found.daemon is None
                else observed(
                    "AMO-4215",
                    "PM2 in {home} has no application {name}{others}.",
                    home=pm2.home,
                    name=name,
                    others=others,
                )
            ),
            expected=say("{name}, started by the user that this task runs as.", name=name),
            next_step=say(
                "check app_name, pm2_home and become_user; on a new host start it (pm2_app, state: started)."
            ),
            others=list(found.others),
        )


def orphans(found: Listing, path: str) -> list[int]:
    """Children of the daemon that work in ``path`` or its releases and that PM2 has in no list."""
    here = (os.path.realpath(path), path)
    family = tuple(f"{one}{os.sep}" for one in (*here, f"{path}.releases", os.path.dirname(here[0])))
    unlisted = [pid for pid in children(found.daemon.pid) if pid not in found.pids] if found.daemon else []
    return [pid for pid in unlisted if f"{working_directory(pid) or ''}{os.sep}".startswith(family)]


def _settled(pm2: Pm2, aim: Aim) -> Listing:
    """The list once no worker is outside it: somebody else's reload parks the old one where no list shows it.

    Between two instances of such a reload every worker is listed: PM2's lock tells that it goes on. A lock alone stops
    nobody, because it is also what a killed `pm2 reload` leaves.
    """
    until = time.monotonic() + aim.demand.instance_timeout_s
    at_least = time.monotonic() + min(_STARTING_S, aim.demand.instance_timeout_s)
    while True:
        found = listing(pm2, aim.demand.name)
        unlisted, under_way = orphans(found, aim.path), _reload_lock_held(pm2)
        waited = time.monotonic() > (until if under_way else at_least)
        if not unlisted and (waited or not under_way):
            return found
        if waited:
            break
        time.sleep(0.5)
    pids, where = _ids(unlisted), working_directory(unlisted[0])
    if under_way:
        raise OperatorError(
            observed(
                "AMO-4216",
                "A reload of {name} is under way: PM2 still holds pid {pids} in {where}, in no list.",
                name=aim.demand.name,
                pids=pids,
                where=where,
            ),
            expected=say("no other reload."),
            next_step=say("wait for it to end, and find out who started it."),
            unlisted=unlisted,
        )
    raise OperatorError(
        observed(
            "AMO-4217",
            "PM2's daemon has a child that is in no list and works in {where}: pid {pids}.",
            where=where,
            pids=pids,
        ),
        expected=say("only workers that PM2 lists: this one takes its share of the requests, with the code it has."),
        next_step=say(
            "look at it (ps -fp {unlisted}); unless a reload is just ending it, kill -INT {unlisted}",
            unlisted=unlisted[0],
        ),
        unlisted=unlisted,
    )


def _reload_lock_held(pm2: Pm2) -> bool:
    """Whether a `pm2 reload` has begun and not ended, for 30 s at most (PM2's lib/Common.js, lockReload)."""
    try:
        with open(os.path.join(pm2.home, "reload.lock"), encoding="utf-8") as lock:
            return time.time() - float(lock.read()) / 1000 < _RELOAD_LOCK_S
    except (OSError, ValueError):
        return False


def _refuse(aim: Aim, seen: str, expected: str, next_step: str) -> NoReturn:
    raise OperatorError(seen, expected=expected, next_step=next_step, application=aim.demand.name)


def _start_anew(aim: Aim) -> str:
    name = aim.demand.name
    return say(
        "in a window of its own: `cd {path} && pm2 delete {name} && pm2 start {ecosystem} --only "
        "{name} && pm2 save`; a reload never applies a changed definition.",
        path=aim.path,
        name=name,
        ecosystem=aim.ecosystem,
    )


def _require_definition(aim: Aim, found: Listing) -> None:
    """What PM2 runs, whatever the ecosystem file says."""
    name, instances, start_anew = aim.demand.name, found.instances, _start_anew(aim)
    forked = [one.pm_id for one in instances if one.exec_mode != "cluster_mode"]
    if forked:
        _refuse(
            aim,
            observed("AMO-4221", "Instances {ids} of {name} run in fork mode.", ids=_ids(forked), name=name),
            say("cluster mode: in fork mode a reload is a restart, and users get connection errors."),
            say("set exec_mode: 'cluster' in the ecosystem file, then {start_anew}", start_anew=start_anew),
        )
    if len(instances) < aim.min_instances:
        _refuse(
            aim,
            observed("AMO-4222", "{name} has 1 instance.", name=name)
            if len(instances) == 1
            else observed("AMO-4231", "{name} has {count} instances.", name=name, count=len(instances)),
            say("{min_instances} or more: the others serve while one is reloaded.", min_instances=aim.min_instances),
            say(
                "set instances: {min_instances} in the ecosystem file, then {start_anew}",
                min_instances=aim.min_instances,
                start_anew=start_anew,
            ),
        )


def _require_patience(aim: Aim, found: Listing) -> None:
    """PM2 waits for ``ready`` before it lists an instance as online: the wait must fit into the instance's time."""
    waits = max(one.ready_wait_s for one in found.instances)
    if waits >= aim.demand.instance_timeout_s:
        _refuse(
            aim,
            observed(
                "AMO-4223",
                "PM2 waits up to {waits} s for each instance of {name} to send `ready` (wait_ready "
                "with listen_timeout), and app_instance_timeout_s is {instance_timeout_s}.",
                waits=f"{waits:g}",
                name=aim.demand.name,
                instance_timeout_s=f"{aim.demand.instance_timeout_s:g}",
            ),
            say("more time for an instance than PM2 waits: `next start` never sends `ready`, so it waits to the end."),
            say(
                "set app_instance_timeout_s: {waits} in the inventory, or take wait_ready out of the ecosystem file.",
                waits=f"{waits * 2 + 30:g}",
            ),
        )


def _require_declared(pm2: Pm2, aim: Aim, found: Listing, ahead: str = "") -> Ready:
    """What the ecosystem file of the release says, behind the link that leads to it already, or ``ahead`` of that."""
    name, instances, start_anew = aim.demand.name, found.instances, _start_anew(aim)
    release = aim.demand.release_path
    if release and os.path.realpath(aim.path) != release:
        _refuse(
            aim,
            observed("AMO-4224", "{path} leads to {realpath}.", path=aim.path, realpath=os.path.realpath(aim.path)),
            say("{release}.", release=release),
            say("switch the link first."),
        )
    frozen = [one for one in instances if release and not _inside(os.path.realpath(one.pm_cwd), release)]
    if frozen:
        _refuse_frozen(aim, frozen)
    want = declared(pm2, aim.ecosystem, name)
    if want is None:
        _refuse(
            aim,
            observed("AMO-4226", "{ecosystem} declares no application {name}.", ecosystem=aim.ecosystem, name=name),
            say("one."),
            say("correct app_name or the ecosystem file."),
        )
    script = os.path.normpath(os.path.join(aim.path, str(want.get("cwd") or ""), str(want.get("script") or "")))
    roots = (aim.path, _place(aim.path), ahead or os.path.realpath(aim.path))
    other = [one.script for one in instances if not _is_same_file(one.script, script, roots)]
    if other:
        _refuse(
            aim,
            observed("AMO-4227", "PM2 runs {other}, the ecosystem file says {script}.", other=other[0], script=script),
            say("the same script."),
            start_anew,
        )
    count = want.get("instances")
    if isinstance(count, int) and count > 0 and count != len(instances):
        _refuse(
            aim,
            observed(
                "AMO-4228",
                "PM2 runs {count} instances of {name}, the ecosystem file says {declared}.",
                count=len(instances),
                name=name,
                declared=count,
            ),
            say("the same number."),
            start_anew,
        )
    others = declared_by_others(pm2, aim.ecosystem, aim.path, release, name) if release else []
    differing = drift(pm2, name, want, others)
    arguments = sorted({key for one in differing.values() for key in one.arguments})
    if arguments:
        _refuse(
            aim,
            observed(
                "AMO-4229",
                "PM2 holds other {arguments} for {name} than the ecosystem file declares.",
                arguments=" and ".join(arguments),
                name=name,
            ),
            say("the same."),
            start_anew,
        )
    variables = sorted({name for one in differing.values() for name in one.variables})
    if variables and want.get("more"):
        _refuse(
            aim,
            observed(
                "AMO-4230",
                "PM2 holds values for {variables} that no env block of the ecosystem file declares.",
                variables=", ".join(variables),
            ),
            say("one of the declared values; which block was chosen at the start, PM2 does not say."),
            say("start it again with the block that is meant (--env ...), {start_anew}", start_anew=start_anew),
        )
    return Ready(found, differing, want, others)


def _refuse_frozen(aim: Aim, frozen: Sequence[Instance]) -> NoReturn:
    name = aim.demand.name
    _refuse(
        aim,
        observed(
            "AMO-4225",
            "PM2 would start instances {ids} of {name} in {where}, whatever {path} leads to.",
            ids=_ids([one.pm_id for one in frozen]),
            name=name,
            where=frozen[0].pm_cwd,
            path=aim.path,
        ),
        say("{path} as the directory that PM2 remembers.", path=aim.path),
        say("set cwd: '{path}' in the ecosystem file, then {start_anew}", path=aim.path, start_anew=_start_anew(aim)),
    )


def _inside(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory}{os.sep}")


def _place(path: str) -> str:
    """The path with its last part kept as it is, and the links before that followed."""
    parent, name = os.path.split(os.path.normpath(path))
    return os.path.join(os.path.realpath(parent), name)


def _leads_through(directory: str, place: str, most_links: int = 40) -> bool:
    """Whether who starts in ``directory`` follows what is at ``place``, also by way of other links or below it."""
    if _place(directory) == place:
        return True
    if most_links and os.path.islink(directory):
        target = os.path.join(os.path.dirname(directory), os.readlink(directory))
        if _leads_through(target, place, most_links - 1):
            return True
    parent = os.path.dirname(directory)
    return parent != directory and _leads_through(parent, place, most_links)


def _is_same_file(one: str, other: str, roots: Collection[str]) -> bool:
    """Whether both are one file of the application, through whichever of the ``roots`` each was found."""
    return _below(one, roots) == _below(other, roots) or os.path.realpath(one) == os.path.realpath(other)


def _below(path: str, roots: Collection[str]) -> str:
    path = os.path.normpath(path)
    return next((os.path.relpath(path, root) for root in roots if _inside(path, root)), os.path.realpath(path))


def _ids(pm_ids: Sequence[int]) -> str:
    return ", ".join(map(str, pm_ids))
