"""Write the notice of an event of a run, in the reader's language.

``words`` are those of roles/notify/files/words_<language>.yml.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..findings import parse, without_going_back
from .messages import Notice

Words = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """What people are told of a run. What it did not get to is empty."""

    run_id: str
    plan: Mapping[str, Any]
    plan_sha256: str
    commit_before: str
    commit_after: str  # the one that is served after a rollback
    report_path: str  # the directory of its report
    who: str = "-"
    outcome: str = "running"
    failed_phase: str | None = None
    error: str = ""
    partial: bool = False  # the run was asked for single phases
    asked: Sequence[str] = ()  # those phases
    removed: int = 0
    restored: int = 0
    left_count: int = 0  # rows that could not return
    verified: Mapping[str, Any] = field(default_factory=dict)  # index_set; its error where it stopped
    traffic: Mapping[str, Any] = field(default_factory=dict)  # the receipt of the traffic probe

    @property
    def ended(self) -> bool:
        return self.outcome != "running"


@dataclass(frozen=True)
class Event:
    """What has happened, as the role hands it over. An alert has a title, facts and an error of its own."""

    name: str
    environment: str
    application: str
    language: str
    at: str
    front_door: str = ""  # the playbook that was started
    title: str = ""
    facts: Sequence[Mapping[str, str]] = ()  # name and value
    error: str = ""
    run: Run | None = None

    @classmethod
    def of_role(cls, event: Mapping[str, Any]) -> Event:
        """The event as the role has it: a mapping with these names. An empty ``run`` stands for no run."""
        return cls(**{**event, "run": Run(**event["run"]) if event.get("run") else None})

    @property
    def kind(self) -> str:
        """The event as a person sees it: a rollback that begins, a run of single phases that has ended."""
        if self.name == "start" and self.front_door == "rollback.yml":
            return "start_rollback"
        if self.run and self.run.partial and self.name in ("success", "unchanged"):
            return "partial"
        return self.name


def notice(event: Event, words: Words) -> Notice:
    """Return the message that every channel gets."""
    facts = [*(_facts(event, event.run, words) if event.run else []), *((f["name"], f["value"]) for f in event.facts)]
    return Notice(event.name, _title(event, words), tuple(facts), _error(event, words), words["findings"], _data(event))


def _title(event: Event, words: Words) -> str:
    title = event.title or words["titles"][event.kind]
    if event.run and event.run.left_count and event.kind == "rollback":
        title += words["without"].replace("ROWS", str(event.run.left_count))
    return f"{title}: {event.environment} | {event.application}"


def _facts(event: Event, run: Run, words: Words) -> list[tuple[str, str]]:
    facts = [
        (words["plan"], run.plan["title"][event.language]),
        (words["commit"], f"{run.commit_before[:12]} -> {run.commit_after[:12]}"),
        (words["who"], run.who),
        (words["run"], run.run_id),
    ]
    if not run.ended:
        return facts
    phases = words["phases"]
    if event.kind == "partial":
        facts.append((words["asked"], ", ".join(phases[phase] for phase in run.asked)))
    if run.failed_phase:
        facts.append((words["phase"], phases.get(run.failed_phase, run.failed_phase)))
    if run.outcome == "rolled_back":
        facts.append((words["restored"], str(run.restored)))
        facts += [(words["left"], str(run.left_count))] if run.left_count else []
    else:
        facts.append((words["removed"], str(run.removed)))
    indexes = run.verified.get("details", run.verified).get("indexes", [])
    present = [index for index in indexes if index["verdict"] == "present"]
    facts.append((words["indexes"], f"{len(present)} / {len(run.plan['indexes'])}"))
    failures, requests = run.traffic.get("failures", 0), run.traffic.get("requests", 0)
    if failures:  # although the run went well, or before it was taken back
        facts.append((words["lost"], f"{failures} / {requests} ({100 * failures / requests:.2f} %)"))
    return [*facts, (words["report"], f"{run.report_path}/report.html")]


def _error(event: Event, words: Words) -> str:
    if event.error or not event.run:
        return event.error
    if event.name != "rollback" or not event.run.error.strip():
        return event.run.error
    # After a rollback nobody is asked for one: in the first place it is said that it is done.
    already = words["left_words"] if event.run.left_count else words["already"]
    return " Seen: ".join(
        f"{found.seen} Expected: {found.expected or '-'} Next: {already} {without_going_back(found.next_step)}".strip()
        for found in parse(event.run.error).findings
    )


def _data(event: Event) -> dict[str, Any]:
    """What the webhook's JSON has beside event, title, text and findings, whatever the language."""
    data: dict[str, Any] = {
        **{"environment": event.environment, "application": event.application, "at": event.at},
        "language": event.language,
    }
    run = event.run
    if run:
        data |= {
            "run_id": run.run_id,
            "plan": {"id": run.plan["id"], "sha256": run.plan_sha256},
            "commit": {"before": run.commit_before, "after": run.commit_after},
            "outcome": run.outcome if run.ended else None,
            "failed_phase": run.failed_phase,
            "report": f"{run.report_path}/report.json" if run.ended else None,
        }
    return data
