"""Whether a process really answers with the new build: its own answers, whatever keeps it running says of it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ..findings import Phrase, say
from ..system.processes import working_directory
from .build_probe import Asker, origin_of, page_names_a_build, proof_of
from .served_build import Probe, Reply, ask


@dataclass(frozen=True)
class Demand:
    """What is proven: the application's name, the real directory, the build, for how long it must stay up."""

    name: str
    release_path: str | None  # None: wherever it was started
    probe: Probe | None
    instance_timeout_s: float = 60.0
    stable_s: float = 3.0


class Unproven(Exception):
    """``cause``: pm2_refused or refused, no_new_process, crashed, wrong_directory, no_answer or wrong_build."""

    def __init__(self, cause: str, seen: str) -> None:
        self.cause, self.seen = cause, seen
        super().__init__(seen)


def with_own_build(demand: Demand, pids: Iterable[int] = ()) -> Demand:
    """Where no header or key names the build: prove it by what tells it from the builds that these processes serve."""
    probe, release = demand.probe, demand.release_path
    if probe is None or release is None or probe.build_header or probe.build_json_key:
        return demand
    serving = {directory for pid in pids if pid and (directory := working_directory(pid))}
    own = proof_of(Path(release), [Path(directory) for directory in serving])
    if serving and own is not None and own.in_page and own.file is None:
        with Asker(origin_of(probe.url), timeout_s=probe.timeout_s) as asker:
            own = own if page_names_a_build(own, asker) else None
    if own is None or not own.proves:
        return replace(demand, probe=replace(probe, build=None))
    return replace(demand, probe=replace(probe, build=own.build_id, own=own))


def how_proven(probe: Probe | None) -> str:
    """By what the build is proven: header, key, page, file, page and file, or nothing."""
    if probe is None or probe.build is None:
        return "nothing"
    if probe.own is None:
        return "header" if probe.build_header else "key"
    return " and ".join(filter(None, ("page" if probe.own.in_page else "", "file" if probe.own.file else "")))


def nothing_tells(name: str) -> Phrase:
    """The warning of an application whose builds nothing tells apart."""
    return say(
        "Nothing tells the build of {name} from the one before: no header or key names it (app_build_header, "
        "app_build_key), and its BUILD_ID and scripts are the same. Only process, directory and stability of "
        "each instance are proven.",
        name=name,
    )


def _naming(reply: Reply) -> str:
    return say("name no build") if reply.build is None else say("name build {build}", build=reply.build)


def hear(probe: Probe, pid: int, instances: int, until: float) -> None:
    """Require an answer of the process ``pid`` with the right build, or of anyone where answers carry no pid.

    Asks no more after ``until`` (monotonic). Raises Unproven: no_answer may pass with time, wrong_build will not.
    """
    problem: str = say("no answer carried pid {pid}", pid=pid)
    for _ in range(8 * instances):  # round robin: pid's turn comes within `instances` questions, others may ask too
        reply = ask(probe)
        if reply.problem:
            problem = reply.problem
        elif not probe.pid_header or reply.pid == str(pid):
            if probe.build is None or reply.build == probe.build:
                return
            if probe.pid_header:
                raise Unproven(
                    "wrong_build",
                    say("its own answer names build {build}, not {wanted}", build=reply.build, wanted=probe.build),
                )
            problem = say("answers {naming}, not {build}", naming=_naming(reply), build=probe.build)
        if time.monotonic() > until:
            break
    raise Unproven("no_answer", problem)


def hear_only_new(demand: Demand, instances: int) -> None:
    """Require four answers in a row for each instance, all with the right build. Raises Unproven."""
    probe, wanted = demand.probe, 4 * instances
    if probe is None:
        return
    deadline, streak, last = time.monotonic() + demand.instance_timeout_s, 0, ""
    while streak < wanted:
        reply = ask(probe)
        right = not reply.problem and (probe.build is None or reply.build == probe.build)
        streak = streak + 1 if right else 0
        if not right:
            build = reply.build or say("not named")
            last = reply.problem or (
                say("build {build} from pid {pid}", build=build, pid=reply.pid)
                if reply.pid
                else say("build {build}", build=build)
            )
            if time.monotonic() > deadline:
                raise Unproven(
                    "wrong_build",
                    say(
                        "never {wanted} answers in a row of build {build}; the last other one: {last}",
                        wanted=wanted,
                        build=probe.build,
                        last=last,
                    ),
                )
            time.sleep(0.05)
