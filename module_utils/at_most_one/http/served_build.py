"""Ask the application which build answers, and from which process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .build_probe import Asker, BuildProof, origin_of, seen_build
from .client import NoAnswer, fetch, place


@dataclass(frozen=True)
class Probe:
    """How to ask the application which build answers, and from which process: header names, a JSON key, or, where it
    has neither, what its pages and files show (``own``)."""

    url: str
    build: str | None = None
    build_header: str | None = None
    build_json_key: str | None = None
    pid_header: str | None = None
    timeout_s: float = 5.0
    expect: tuple[int, ...] = (200,)
    own: BuildProof | None = None


@dataclass(frozen=True)
class Reply:
    """What one question to the application brought; ``problem`` when it was no answer at all or a wrong status."""

    build: str | None
    pid: str | None
    problem: str | None


def probe_of(given: Mapping[str, Any]) -> Probe:
    """The probe that a module's options describe: ``url`` and the other fields. An empty text says "none" there.

    What names no commit by a header or a key is proven by the build's own id and files (:mod:`.proof`).
    """
    said: dict[str, Any] = {name: value if value != "" else None for name, value in given.items()}
    if not (said["build_header"] or said["build_json_key"]):
        said["build"] = None
    said["expect"] = tuple(said["expect"])
    return Probe(**said)


def ask(probe: Probe) -> Reply:
    """One question on a new connection, so that PM2's round robin can choose any instance."""
    if probe.own:
        return _ask_for_own_build(probe, probe.own)
    try:
        answer = fetch("GET", probe.url, timeout_s=probe.timeout_s)
    except NoAnswer as failure:
        return Reply(None, None, str(failure))
    build = answer.header(probe.build_header) if probe.build_header else None
    if build is None and probe.build_json_key:
        body = answer.json()
        value = body.get(probe.build_json_key) if isinstance(body, dict) else None
        build = None if value is None else str(value)
    pid = answer.header(probe.pid_header) if probe.pid_header else None
    return Reply(build, pid, None if answer.status in probe.expect else answer.line())


def _ask_for_own_build(probe: Probe, own: BuildProof) -> Reply:
    """The same with what shows the build, all on one connection: the answers are those of one process."""
    pid = None
    with Asker(origin_of(probe.url), timeout_s=probe.timeout_s) as asker:
        try:
            answer = asker.get(place(probe.url).target)
            pid = answer.header(probe.pid_header) if probe.pid_header else None
            if answer.status not in probe.expect:
                return Reply(None, pid, answer.line())
            return Reply(seen_build(own, asker), pid, None)
        except NoAnswer as failure:
            return Reply(None, pid, str(failure))
