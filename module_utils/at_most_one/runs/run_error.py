"""Say what a run of the journal has ended with, for a reader of any language.

The journal keeps the error as it was shown, in English. What it consists of stands beside the phase that failed, as the
control node has handed it over; an older release has left the text alone, which then stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..findings import Finding, Phrase, joined, say, warning, whole

_TAKEN_OVER = re.compile(r"taken over by (?P<who>.+?): (?P<why>.+)", re.DOTALL)
_LEASE_ENDED = re.compile(r"its lease ended at (?P<lease_until>\S+)")
_PROCESS_GONE = re.compile(r"its process (?P<pid>\d+) on (?P<controller>\S+) is gone")
ASKED_FOR = say("takeover was asked for")


def taken_over(who: str, why: str) -> Phrase:
    """What a run has ended with that another one has taken over."""
    return say("taken over by {who}: {why}", who=who, why=why)


def lease_ended(lease_until: str) -> Phrase:
    """Why a run may be taken over whose lease has ended."""
    return say("its lease ended at {lease_until}", lease_until=lease_until)


def process_gone(pid: int | str, controller: str) -> Phrase:
    """Why a run may be taken over whose process has ended."""
    return say("its process {pid} on {controller} is gone", pid=pid, controller=controller)


def of(run: Mapping[str, Any]) -> Phrase:
    """The run's first error, each finding with its identifier; empty where it has none."""
    if found := _findings(run):
        return joined([warning(one) if one.identifier else whole([one]) for one in found], " ")
    text = "\n".join(str(run["error"] or "").splitlines()[:1])
    taken = _TAKEN_OVER.fullmatch(text) if run["outcome"] == "abandoned" else None
    return taken_over(taken["who"], _why(taken["why"])) if taken else say("{text}", text=text)


def _findings(run: Mapping[str, Any]) -> list[Finding]:
    """What the error consists of, where the run has ended with that of its failed phase."""
    failed = [phase for phase in run["phases"] if phase["name"] == run["failed_phase"] and phase["status"] == "failed"]
    details = (failed[-1]["details"] if failed else None) or {}
    return [Finding.of_data(one) for one in details.get("findings") or ()]


def _why(text: str) -> str:
    """The reason that the journal has as text. Any other text stays as it is."""
    if found := _LEASE_ENDED.fullmatch(text):
        return lease_ended(found["lease_until"])
    if found := _PROCESS_GONE.fullmatch(text):
        return process_gone(found["pid"], found["controller"])
    return ASKED_FOR if text == ASKED_FOR else text
