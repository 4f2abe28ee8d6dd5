"""The facts of a run that its report is made of, as the role hands them over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..findings import parse

Rows = Sequence[Mapping[str, Any]]
Answer = Mapping[str, Any]  # what a module has returned; empty where it was not called


@dataclass(frozen=True)
class RollbackFacts:
    """What a rollback of this run did, asked for or automatic."""

    plan: Answer = field(default_factory=dict)  # rollback_plan, before it
    done: Answer = field(default_factory=dict)  # database_rollback
    instances: Rows = ()

    @property
    def commit(self) -> str:
        """What the instances serve now."""
        commit: str = self.plan.get("commit", "")
        return commit

    @property
    def restored(self) -> int:
        """How many rows are back."""
        return int(self.done.get("restored", 0))

    @property
    def left(self) -> Rows:
        """What could not return, by table and reason."""
        left: Rows = self.done.get("left", ())
        return left

    @property
    def left_count(self) -> int:
        """How many rows of the plan's table could not return."""
        return int(self.done.get("left_count", 0))


@dataclass(frozen=True)
class RunFacts:
    """One run. What the run did not get to is empty."""

    run_id: str
    environment: str
    application: str
    language: str
    check_mode: bool
    outcome: str  # running | deployed | unchanged | rolled_back | stopped
    plan: Mapping[str, Any]
    plan_sha256: str
    commit_before: str
    commit_after: str  # the wanted commit
    report_path: str  # of report.html, as the last line names it
    commands: Mapping[str, str]  # deploy, rollback and again: the playbook that was started
    error: str | None = None
    findings: Rows = ()  # of the error, as catalogue.shown has them
    afterwards: Rows = ()  # what it has behind the first one: text in the reader's language, english
    failed_phase: str | None = None
    partial: bool = False  # the run was asked for single phases
    asked: Sequence[str] = ()  # those phases
    gates: Sequence[str] | None = None  # the gates of the checklist that this environment asks for; None: all
    opened: Answer = field(default_factory=dict)  # deploy_run, when the run began
    ended: Answer = field(default_factory=dict)  # deploy_run, when it was closed; run_stop, where it stopped
    found: Answer = field(default_factory=dict)  # duplicate_rows, the table of groups for people
    cleanup: Answer = field(default_factory=dict)  # duplicate_rows, the removal
    build: Answer = field(default_factory=dict)  # index_set
    verified: Answer = field(default_factory=dict)  # index_set, verify; its error where it stopped
    traffic: Answer = field(default_factory=dict)  # the receipt of the traffic probe
    service: Answer = field(default_factory=dict)  # service_check, the last call; its error where it stopped
    log: Answer = field(default_factory=dict)  # service_check, of the host that writes the report
    reloaded: Mapping[str, Answer] = field(default_factory=dict)  # pm2_app, of each host
    rollback: RollbackFacts = field(default_factory=RollbackFacts)
    parts: Mapping[str, bool] = field(default_factory=dict)  # run_inputs; empty: everything takes part

    @classmethod
    def of_role(cls, facts: Mapping[str, Any]) -> RunFacts:
        """The facts as the role has them: a mapping with these names."""
        return cls(**{**facts, "rollback": RollbackFacts(**facts.get("rollback", {}))})

    @property
    def causes(self) -> Rows:
        """What the error consists of. A foreign one, or one of a role, is taken apart."""
        error = self.error or ""
        if self.findings or not error.strip():
            return self.findings
        return [{"identifier": "", **found.phrases(), "english": found.phrases()} for found in parse(error).findings]

    @property
    def has_application(self) -> bool:
        return self.parts.get("application", True) or self.by_commands

    @property
    def by_commands(self) -> bool:
        """Whether commands of its own have switched the application: nobody knows its instances then."""
        return self.parts.get("commands", False)

    @property
    def by_prisma(self) -> bool:
        return self.parts.get("prisma", True)

    @property
    def checks(self) -> Rows:
        """What was checked after the change."""
        said = self._said_of_service
        return [] if said.get("before", True) else [*said["checks"], *self.log.get("checks", [])]

    @property
    def known_faults(self) -> Rows:
        """The faults of the release before, with what became of each."""
        found: Rows = self._said_of_service.get("found", [])
        return found

    @property
    def _said_of_service(self) -> Answer:
        said: Answer = self.service.get("details", self.service)
        return said

    @property
    def instances(self) -> Rows:
        """The instances that were reloaded."""
        return [{**one, "host": host} for host, answer in self.reloaded.items() for one in answer.get("instances", [])]

    @property
    def rolled_back(self) -> bool:
        return self.outcome == "rolled_back"

    @property
    def running(self) -> bool:
        return self.outcome == "running"

    @property
    def answer(self) -> Answer:
        """What the journal said last."""
        return self.opened if self.running else self.ended

    @property
    def journal(self) -> Mapping[str, Any]:
        """The run's row in the journal; empty where the journal could not be reached."""
        journal: Mapping[str, Any] = self.answer.get("run", {})
        return journal

    @property
    def who(self) -> str | None:
        """Who started it, as far as the journal has said."""
        run: Mapping[str, Any] = self.journal or self.opened.get("run", {})
        return run.get("who")

    @property
    def taken_back(self) -> Mapping[str, Any]:
        """What the rollback took back: ``runs``, and ``built``, the indexes that were there before it."""
        reached: Mapping[str, Any] = (
            self.ended.get("reached", {}) if self.error else self.rollback.plan.get("found", {})
        )
        return reached


def pick(rows: Rows, *names: str) -> list[dict[str, Any]]:
    """Each row reduced to these keys; a missing one is None."""
    return [{name: row.get(name) for name in names} for row in rows]
