"""Restart one unit at a time, and believe nothing: the first one that is not provably new stops the rest.

A restart is a gap in what that unit answers. It costs no request where a proxy goes on to the next unit, and where
every other one serves meanwhile: so a unit that serves is restarted only then.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from ..errors import OperatorError
from ..findings import observed, say
from ..http.proof import Unproven, how_proven, with_own_build
from ..system.app_logs import telling
from ..system.processes import working_directory
from ..system.run_token import Guard, unguarded
from . import client
from .client import State, Systemd
from .preflight import Aim, preflight, require_brought_back
from .proof import already_proven, as_result, prove, serves

# A process that crashes again and again, or is silent, keeps whoever a proxy sends to it waiting.
_ISOLATE = ("crashed", "no_answer")


def restart(systemd: Systemd, aim: Aim, *, check: bool = False, guard: Guard = unguarded) -> dict[str, Any]:
    """Bring every unit to the release, one at a time; OperatorError at the first failure.

    Units already proven are left alone. In check mode nothing is restarted and the result says what would be. ``guard``
    stands around each write: between two units a later run may have deployed something else.
    """
    with guard([]):  # before anything is judged: after a later run nothing is as this one expects it
        pass
    found = preflight(systemd, aim, linked=not check)
    up = {one.name for one in found if serves(aim.of(one.unit), one)}
    aim = _with_own_build(aim, found, up)
    due = [one for one in found if not already_proven(aim.of(one.unit), one)]
    due.sort(key=lambda one: one.name in up)  # what is down goes first: it can only become better
    result: dict[str, Any] = {
        "changed": bool(due),
        "unchanged": [one.name for one in found if one not in due],
        "build_proof": how_proven(aim.demand.probe),
        "outdated": [one.name for one in found if one.outdated],
        "log_offsets": {},  # the journal is not compared
        "diff": {
            "before": "".join(f"{_line(one)}\n" for one in due),
            "after": "".join(f"{one.name}: pid new, {aim.demand.release_path}\n" for one in due),
        },
    }
    if check:
        return {**result, "instances": [as_result(one, None) for one in due]}
    done, began = list[tuple[State, State]](), time.time()
    for one in due:
        done.append(_renewed(systemd, aim, guard, one, done))
    _require_all(systemd, aim, guard, done, began)
    return {**result, "instances": [as_result(before, after) for before, after in done]}


def require_kept(systemd: Systemd, name: str) -> None:
    """Raises OperatorError unless every unit is active, and a reboot brings it back."""
    found = client.states(systemd)
    down = [one.name for one in found if not one.online]
    if down:
        raise OperatorError(
            observed("AMO-4509", "Units {down} of {name} are not active.", down=", ".join(down), name=name),
            expected=say("all of them."),
            next_step=say("read their logs (journalctl --unit={unit}), and start them first.", unit=down[0]),
            units=down,
        )
    require_brought_back(found)


def words(instance: Mapping[str, Any]) -> str:
    """A unit of the result of :func:`restart`, for a sentence."""
    return say(
        "{unit} restarted (pid {old_pid} -> {new_pid})",
        unit=instance["pm_id"],
        old_pid=instance["old_pid"],
        new_pid=instance["new_pid"],
    )


def _with_own_build(aim: Aim, found: Sequence[State], up: set[str]) -> Aim:
    """Where no header or key names the build: prove it by what tells it from the builds that the units serve."""
    asked = next((one.unit for one in found if one.name in up), found[0].unit)
    proven = with_own_build(aim.of(asked), [one.pid for one in found])
    return replace(aim, demand=replace(aim.demand, probe=proven.probe))


def _renewed(
    systemd: Systemd, aim: Aim, guard: Guard, listed: State, done: Sequence[tuple[State, State]]
) -> tuple[State, State]:
    """Restart one unit, and have it proven; the unit before and after it."""
    demand, began = aim.of(listed.unit), time.time()
    before = client.state(systemd, listed.unit)  # somebody else may have restarted it since it was looked at
    try:
        if serves(demand, before):
            _require_others(systemd, aim, before)
        with guard(_words(done)):
            ended = client.restart(systemd, before, demand.instance_timeout_s)
        if ended.returncode not in (0, None) and client.state(systemd, before.unit).process == before.process:
            raise Unproven("refused", client.refused(ended))
        return before, prove(systemd, demand, before)
    except Unproven as unproven:
        _fail(systemd, aim, guard, unproven, before, done, began)


def _require_others(systemd: Systemd, aim: Aim, before: State) -> None:
    """A unit that serves may only be restarted while every other one serves too."""
    for one in client.states(systemd):
        if one.name != before.name and not serves(aim.of(one.unit), one):
            raise Unproven(
                "refused",
                say("not restarted: {other} does not serve meanwhile ({status})", other=one.name, status=one.active),
            )


def _require_all(systemd: Systemd, aim: Aim, guard: Guard, done: Sequence[tuple[State, State]], began: float) -> None:
    """Once more, when the last one is proven: each of them is still the process that was, in the release."""
    if not done:
        return
    proven = {after.name: after for _before, after in done}
    for now in client.states(systemd):
        unproven = None
        directory = working_directory(now.pid) if now.pid else None
        if now.name in proven and now.process != proven[now.name].process:
            unproven = Unproven(
                "crashed", say("pid {pid} died while the next units were restarted", pid=proven[now.name].pid)
            )
        elif aim.demand.release_path and directory != aim.demand.release_path:
            unproven = Unproven("wrong_directory", say("pid {pid} works in {cwd}", pid=now.pid, cwd=directory))
        if unproven:
            _fail(systemd, aim, guard, unproven, now, done, began)


def _fail(
    systemd: Systemd,
    aim: Aim,
    guard: Guard,
    unproven: Unproven,
    failed: State,
    done: Sequence[tuple[State, State]],
    began: float,
) -> NoReturn:
    name = aim.demand.name
    # One that was left alone has said nothing of it.
    lines = [] if unproven.cause == "refused" else client.words(systemd, failed.unit, began, aim.log_lines)
    begun = say("{unit} begun and not proven ({cause})", unit=failed.name, cause=unproven.cause)
    with guard([*_words(done), begun]):
        others = [one for one in client.states(systemd) if one.name != failed.name]
        serving = [one.name for one in others if serves(aim.of(one.unit), one)]
        isolated = unproven.cause in _ISOLATE and bool(serving)
        if isolated:
            client.stop(systemd, failed.unit, aim.demand.instance_timeout_s)
    reloaded = [before.name for before, _after in done]
    raise OperatorError(
        observed(
            "AMO-4510",
            "{unit} of {name} is not provably new ({cause}): {seen}.{telling}",
            unit=failed.name,
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
            "{serving} serve. The deployment takes the link and {back} back by itself; then correct what its log "
            "names: journalctl --unit={unit}.",
            serving=", ".join(serving) or say("none"),
            back=", ".join(sorted({*reloaded, failed.name})),
            unit=failed.name,
        ),
        failed={
            "pm_id": failed.name,
            "cause": unproven.cause,
            "seen": unproven.seen,
            "error_lines": lines,
            "isolated": isolated,
        },
        reloaded=reloaded,
        serving=serving,
    )


def _words(done: Sequence[tuple[State, State]]) -> list[str]:
    return [words(as_result(before, after)) for before, after in done]


def _line(one: State) -> str:
    directory = working_directory(one.pid) if one.pid else None
    return f"{one.name}: pid {one.pid or 'none'}, {directory or 'nowhere'}"
