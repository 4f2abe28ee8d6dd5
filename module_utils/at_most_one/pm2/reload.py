"""Reload one instance at a time, and believe nothing: the first one that is not provably new stops the rest.

``pm2 reload`` kills the old process on ready, on listening **or on timeout**, and returns 0 with a tick in every case
(PM2's lib/God/Reload.js). With one instance at a time the others keep serving whatever happens to it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NoReturn

from ..errors import OperatorError
from ..findings import observed, say
from ..http.proof import Unproven, hear_only_new, how_proven, with_own_build
from ..system.app_logs import log_sizes, telling
from ..system.log_errors import Mark, Moment, Served, age, moments
from ..system.processes import is_within, start_ticks, working_directory
from ..system.run_token import Guard, unguarded
from . import rpc
from .bus import Overheard
from .client import Instance, Listing, Pm2, listing, run
from .ecosystem import Drift, drift
from .handover import held
from .preflight import Aim, Ready, preflight
from .proof import already_proven, as_result, error_lines, is_steady, prove

# A process that crashes or is silent is worth nothing to the users, and takes its share of the requests.
_ISOLATE = ("crashed", "no_answer")
# The errors that the release before writes are known by how often it does; on a fast host PM2 answers sooner than this.
_COMPARED_S = 0.5


def reload(
    pm2: Pm2, aim: Aim, *, only: Sequence[int] | None = None, check: bool = False, guard: Guard = unguarded
) -> dict[str, Any]:
    """Bring every instance, or ``only`` those, to the release, one at a time; OperatorError at the first failure.

    Instances already proven are left alone. In check mode nothing is reloaded and the result says what would be.
    ``guard`` stands around each write: between two instances a later run may have deployed something else.
    """
    with guard([]):  # before anything is judged: after a later run nothing is as this one expects it
        pass
    ready = preflight(pm2, aim, linked=not check)
    found = ready.found
    total = len(found.instances)
    aim = replace(aim, demand=with_own_build(aim.demand, [one.pid for one in found.instances]))
    missing = sorted(set(only or ()) - {one.pm_id for one in found.instances})
    if missing:
        raise OperatorError(
            observed("AMO-4218", "PM2 has no instances {ids} of {name}.", ids=_ids(missing), name=aim.demand.name),
            expected=say("some of {ids}.", ids=_ids([one.pm_id for one in found.instances])),
            next_step=say("compare with `pm2 list`; somebody deleted or started instances meanwhile."),
        )
    wanted = [one for one in found.instances if only is None or one.pm_id in only]
    due = [one for one in wanted if one.pm_id in ready.outdated or not already_proven(aim.demand, one, total)]
    due.sort(key=lambda one: (one.online, one.pm_id))  # what is down goes first: it can only become better
    daemon_log = os.path.join(pm2.home, "pm2.log")
    began = moments(path for one in found.instances for path in _logs(one))
    result: dict[str, Any] = {
        "changed": bool(due),
        "unchanged": [one.pm_id for one in wanted if one not in due],
        "build_proof": how_proven(aim.demand.probe),
        "environment": sorted({name for one in ready.outdated.values() for name in one.variables}),
        "environment_removed": sorted({name for one in ready.outdated.values() for name in one.leftover}),
        "diff": {
            "before": "".join(f"{_line(one.pm_id, one.pid, working_directory(one.pid))}\n" for one in due),
            "after": "".join(f"{_line(one.pm_id, None, aim.demand.release_path)}\n" for one in due),
        },
    }
    if check:
        return {
            **result,
            "instances": [as_result(one, None) for one in due],
            "log_offsets": _marks(found.instances, found.instances, due, began, moments(began), {}),
        }
    since = {**{path: moment.size for path, moment in began.items()}, **log_sizes([daemon_log])}
    gone: dict[int, dict[str, Moment]] = {}  # by pm_id: the logs when its old process was gone
    done: list[tuple[Instance, Instance]] = []
    # Each `pm2 jlist` starts a Node.js: what was read a moment ago is not read again. The look ahead took its time.
    latest = listing(pm2, aim.demand.name) if due else found
    if due and began:
        time.sleep(min(_COMPARED_S, max(0.0, _COMPARED_S - max(map(age, began.values())))))
    last = moments(began)
    with Overheard(pm2) as heard:
        for before in due:
            before = _as_listed(latest, before)
            try:
                _require_sibling(latest, before)
                known = [one.pid for one in latest.instances]
                with guard(_words(done)), held(aim.demand.probe if before.online else None, before.pid, known):
                    begun = _reload_one(pm2, aim, ready, before)
                before = begun.before
                _await_end(before.pid, begun.ticks, aim.demand.instance_timeout_s)
                gone[before.pm_id] = moments(_logs(before))
                after, latest = prove(pm2, aim.demand, before, total, steady=begun.steady)
                done.append((before, after))
            except Unproven as unproven:
                _fail(pm2, aim, guard, unproven, before, done, heard, since)
            except OperatorError:  # PM2 did not answer in time. Or this process was frozen, and is overtaken by now
                with guard([*_words(done), _begun(before, "no_answer")]):
                    raise
        now = latest.instances
        suspect = _died_meanwhile(done, now) or _elsewhere(aim, now) or _outdated(pm2, aim, ready, now)
        try:
            if suspect:
                raise suspect[1]
            hear_only_new(aim.demand, total)
        except Unproven as unproven:
            _fail(pm2, aim, guard, unproven, suspect[0] if suspect else now[-1], done, heard, since)
    return {
        **result,
        "instances": [as_result(before, after) for before, after in done],
        "log_offsets": _marks(found.instances, now, due, began, last, gone),
    }


def _logs(instance: Instance) -> tuple[str, str]:
    return instance.out_log, instance.err_log


def _await_end(pid: int, ticks: int | None, within_s: float) -> None:
    """Wait until the process has ended. PM2 has told it to, and kills it after ``kill_timeout``."""
    deadline = time.monotonic() + within_s
    while ticks is not None and start_ticks(pid) == ticks and time.monotonic() < deadline:
        time.sleep(0.05)


def _marks(
    before: Sequence[Instance],
    now: Sequence[Instance],
    due: Sequence[Instance],
    began: Mapping[str, Moment],
    last: Mapping[str, Moment],
    gone: Mapping[int, Mapping[str, Moment]],
) -> dict[str, dict[str, Any]]:
    """Where the lines of the processes that serve ``now`` begin, by log; see ``system.log_errors.Mark``.

    Where some instances served the release already, what was written before the others were reloaded is of both
    releases: nothing can be compared then.
    """
    old, wanted = {one.pm_id: one for one in before}, {one.pm_id for one in due}
    marks = {}
    for path, moment in last.items():
        writers = [one for one in now if path in _logs(one)]
        comparable = len(wanted & {one.pm_id for one in writers}) in (0, len(writers))
        # An instance that was taken back after a failed deployment started later than that deployment's lines.
        started = max((old[one.pm_id].started_ms / 1000 for one in writers if one.pm_id in old), default=None)
        served = []
        for one in writers:
            at = gone.get(one.pm_id, {}).get(path, moment)
            old_pid = old[one.pm_id].pid if one.pm_id in gone else None
            served.append(Served(one.pm_id, one.pid, old_pid, at.size, at.at, at.up))
        marks[path] = asdict(Mark(path, tuple(served), (began[path], moment) if comparable else (), started))
    return marks


def _died_meanwhile(
    done: Sequence[tuple[Instance, Instance]], now: Sequence[Instance]
) -> tuple[Instance, Unproven] | None:
    listed = {one.pm_id: one for one in now}
    for _before, after in done:
        one = listed.get(after.pm_id)
        # `pm2 reset` counts the restarts from 0 again, and restarts nothing.
        lives = one is not None and one.pid == after.pid and one.restarts <= after.restarts
        if not lives or start_ticks(after.pid) is None:
            return after, Unproven(
                "crashed", say("pid {pid} died while the next instances were reloaded", pid=after.pid)
            )
    return None


def _elsewhere(aim: Aim, now: Sequence[Instance]) -> tuple[Instance, Unproven] | None:
    for one in now:
        if aim.demand.release_path and not is_within(cwd := working_directory(one.pid), aim.demand.release_path):
            return one, Unproven("wrong_directory", say("pid {pid} works in {cwd}", pid=one.pid, cwd=cwd))
    return None


def _outdated(pm2: Pm2, aim: Aim, ready: Ready, now: Sequence[Instance]) -> tuple[Instance, Unproven] | None:
    """Whether a variable still has its old value, or is still there, where that was to change."""
    still = drift(pm2, aim.demand.name, ready.declared, ready.others) if ready.outdated else {}
    for one in now:
        if one.pm_id in still and one.pm_id in ready.outdated and (names := _names(still[one.pm_id])):
            return one, Unproven("wrong_environment", say("PM2 still holds old values: {names}", names=names))
    return None


def _names(drift: Drift) -> str:
    return ", ".join((*drift.variables, *drift.leftover))


def _require_sibling(found: Listing, before: Instance) -> None:
    """An instance that serves may only be reloaded while another one serves too."""
    others = [one for one in found.instances if one.pm_id != before.pm_id]
    if before.online and not any(one.online for one in others):
        raise Unproven("pm2_refused", say("not reloaded: no other instance is online to serve meanwhile"))


def _as_listed(found: Listing, instance: Instance) -> Instance:
    """The instance as PM2 lists it now: somebody else's reload may have restarted it since it was looked at."""
    return next((one for one in found.instances if one.pm_id == instance.pm_id), instance)


@dataclass(frozen=True)
class _Begun:
    """A reload that was begun: the instance just before it, when its process had started, and whether it was steady."""

    before: Instance
    ticks: int | None
    steady: bool


def _reload_one(pm2: Pm2, aim: Aim, ready: Ready, before: Instance) -> _Begun:
    """Reload the instance. A reload that is under way is waited for."""
    pm_id = before.pm_id
    deadline = time.monotonic() + aim.demand.instance_timeout_s
    timeout_s = aim.demand.instance_timeout_s + 60
    while True:
        said = ""
        # The process that is replaced: another reload that is waited for brings another one.
        begun = _Begun(before, start_ticks(before.pid) if before.pid else None, is_steady(aim.demand, before))
        if pm_id in ready.outdated:
            # No command of PM2 removes a variable, and with --update-env it takes over those of its own process.
            try:
                rpc.reload(pm2, pm_id, ready.environment(pm_id), ready.outdated[pm_id].leftover, timeout_s)
            except rpc.Refused as refused:
                said = str(refused)
                if "already in progress" not in said:
                    raise Unproven("pm2_refused", said) from refused
        else:
            done = run(pm2, "reload", str(pm_id), timeout_s=timeout_s)
            said = done.stdout + done.stderr
        # PM2's lock lasts 30 s when whoever took it was killed (lib/Common.js, lockReload).
        if "already in progress" not in said:
            return begun
        if time.monotonic() > deadline:
            raise Unproven("pm2_refused", say("PM2 says that another reload is in progress"))
        time.sleep(1)
        before = _as_listed(listing(pm2, aim.demand.name), before)


def _fail(
    pm2: Pm2,
    aim: Aim,
    guard: Guard,
    unproven: Unproven,
    failed: Instance,
    done: Sequence[tuple[Instance, Instance]],
    heard: Overheard,
    offsets: dict[str, int],
) -> NoReturn:
    name = aim.demand.name
    lines = error_lines(pm2, name, failed, heard, offsets)
    with guard([*_words(done), _begun(failed, unproven.cause)]):
        others = [one for one in listing(pm2, name).instances if one.pm_id != failed.pm_id]
        serving = [one.pm_id for one in others if one.online]
        isolated = unproven.cause in _ISOLATE and bool(serving)
        if isolated:
            run(pm2, "stop", str(failed.pm_id))
    reloaded = [before.pm_id for before, _after in done]
    back = sorted({*reloaded, failed.pm_id})
    raise OperatorError(
        observed(
            "AMO-4219",
            "Instance {pm_id} of {name} is not provably new ({cause}): {seen}.{telling}",
            pm_id=failed.pm_id,
            name=name,
            cause=unproven.cause,
            seen=unproven.seen,
            telling=say(" Its log says: {telling}", telling=telling(lines)) if lines else "",
        ),
        expected=say(
            "a new process that stays up for {stable_s} s, works in {release_path} and answers with build {build}.",
            stable_s=f"{aim.demand.stable_s:g}",
            release_path=aim.demand.release_path,
            build=aim.demand.probe.build if aim.demand.probe else say("unasked"),
        ),
        next_step=say(
            "instances {serving} serve. The deployment takes the link and {back} back by itself; then "
            "correct what the error lines name.",
            serving=_ids(serving) or say("none"),
            back=_ids(back),
        ),
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


def words(instance: Mapping[str, Any]) -> str:
    """An instance of the result of :func:`reload`, for a sentence."""
    return say(
        "instance {pm_id} reloaded (pid {old_pid} -> {new_pid})",
        **{name: instance[name] for name in ("pm_id", "old_pid", "new_pid")},
    )


def _begun(instance: Instance, cause: str) -> str:
    return say("instance {pm_id} begun and not proven ({cause})", pm_id=instance.pm_id, cause=cause)


def _words(done: Sequence[tuple[Instance, Instance]]) -> list[str]:
    return [words(as_result(before, after)) for before, after in done]


def _ids(pm_ids: Sequence[int]) -> str:
    return ", ".join(map(str, pm_ids))


def _line(pm_id: int, pid: int | None, directory: str | None) -> str:
    return f"instance {pm_id}: pid {pid or 'new'}, {directory or 'nowhere'}"
