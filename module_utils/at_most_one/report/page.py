"""Derive what the page, the ticket and the last line say beyond report.json, in the reader's language.

``words`` are those of roles/report/files/words_<language>.yml; ``report`` is report.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..catalogue import in_words
from ..findings import parse, without_going_back
from ..system.commit_names import short
from . import planned
from .document import verification
from .facts import Answer, RunFacts

Words = Mapping[str, Any]
Report = Mapping[str, Any]

_SECTIONS = ("timeline", "cleanup", "indexes", "pause", "traffic", "instances", "checks", "checklist")
_OF_APPLICATION = ("traffic", "instances", "checks")
_CAUSES = 3  # findings that the last line names


@dataclass(frozen=True)
class Page:
    """What the templates read beside report.json. Texts are whole sentences; what does not apply is empty."""

    application: str
    title: str  # the plan's
    attempted: str  # the wanted commit
    headline: str
    sentence: str
    is_bad: bool
    stopped: bool  # ended before its end, and was not asked for single phases only
    to_do: str  # of a run without an error
    findings: Sequence[Mapping[str, str]]  # of its error: identifier, seen, expected, next_step
    afterwards: str  # what the error says of the way back
    already: str  # what there is to do after a rollback
    taken_back: str  # what the rollback did
    figures: Sequence[str]
    lost: str
    proven: str
    left: Sequence[str]  # rows that could not return, a line for each reason
    sections: Sequence[str]  # in the order in which a person asks
    empty: Sequence[str]  # titles of the others
    journal: Mapping[str, Any]  # who, controller, started_at, seconds
    groups: Sequence[Mapping[str, Any]]  # of duplicates: key, keep, surplus
    is_cut: bool  # cleanup_plan.json has more groups
    was_searched: bool  # for duplicates
    action: str  # what the plan does with a surplus row
    repointed: int
    indexes: Sequence[Mapping[str, Any]]  # name, verdict, planned, definition, parts, is_good
    build: Answer  # strategy, seconds, attempts, write_pause_ms, write_pause_predicted_ms
    traffic: Answer  # the whole receipt
    gates: Mapping[str, Mapping[str, Any]]
    checks: Sequence[Mapping[str, Any]]  # as report.json has them, in the reader's language
    known_faults: Sequence[Mapping[str, Any]]
    commands: Mapping[str, str]  # deploy, again, rollback
    rollback_takes: str  # where rollback.yml would take this run back
    earlier: Sequence[Mapping[str, Any]]  # reports of earlier runs to be corrected, as report_files takes them
    last_line: str
    last_facts: Sequence[tuple[str, str]]


def page(run: RunFacts, report: Report, words: Words) -> Page:
    """Return all that the templates read."""
    return _Writer(run, report, words).page()


class _Writer:
    def __init__(self, run: RunFacts, report: Report, words: Words) -> None:
        self.run, self.report, self.words = run, report, words
        self.details = {phase["name"]: phase.get("details", {}) for phase in run.journal.get("phases", [])}
        self.is_partial = run.partial and not run.error and not run.running
        self.stopped = run.outcome == "stopped" and not self.is_partial
        self.afterwards = "\n".join(one["text"] for one in run.afterwards) or parse(run.error or "").afterwards
        # After a rollback no next step asks for one.
        self.findings = [
            {
                **{name: found.get(name, "") for name in ("identifier", "seen", "expected")},
                "next_step": without_going_back(found["next_step"]) if run.rolled_back else found["next_step"],
            }
            for found in run.causes
        ]
        self.left_count = report["restored"]["left"]
        self.left = [
            words["left_reasons"][row["reason"]]
            .replace("COUNT", str(row["count"]))
            .replace("TABLE", row["table"])
            .replace("NAME", row["name"])
            for row in report["restored"]["why"]
        ]
        self.left_words: str = (
            words["left_words"]
            .replace("ROWS", str(self.left_count))
            .replace("COMMAND", f"{run.commands['rollback']} -e rollback_only_rows=true")
        )

    def page(self) -> Page:
        run = self.run
        sections = self.sections()
        return Page(
            application=run.application,
            title=run.plan["title"][run.language],
            attempted=run.commit_after,
            headline=self.headline(),
            sentence=self.sentence(),
            is_bad=self.is_bad(),
            stopped=self.stopped,
            to_do=self.to_do(),
            findings=self.findings,
            afterwards=self.afterwards,
            already=self.already(),
            taken_back=self.taken_back(),
            figures=self.figures(),
            lost=self.lost(),
            proven=self.proven(),
            left=self.left,
            sections=[] if run.running else sections,
            empty=[] if run.running or self.is_partial else self.empty(sections),
            journal=run.journal,
            groups=run.found.get("groups", []),
            is_cut=bool(run.found.get("truncated")),
            was_searched="row_count" in run.found,
            action=run.plan["surplus"]["action"],
            repointed=int(run.cleanup.get("repointed", 0)),
            indexes=self.indexes(),
            build=self.build(),
            traffic=run.traffic,
            gates=self.gates(),
            checks=[in_words(one, run.language) for one in run.checks],
            known_faults=[in_words(one, run.language) for one in run.known_faults],
            commands=run.commands,
            rollback_takes=self.rollback_takes(),
            earlier=self.earlier(),
            last_line=self.last_line(),
            last_facts=self.last_facts(),
        )

    def kind(self) -> str:
        """Which sentence says how it ended."""
        if self.run.check_mode:
            return "check_mode"
        if self.is_partial:
            return "partial"
        return "left" if self.left else self.run.outcome

    def sentence(self) -> str:
        sentences = self.words["sentences"]
        if not self.run.has_application:
            sentences = {**sentences, **self.words["sentences_database"]}
        elif self.run.by_commands:
            sentences = {**sentences, **self.words["sentences_commands"]}
        return str(sentences[self.kind()]).replace("ROWS", str(self.left_count))

    def is_bad(self) -> bool:
        return bool(self.run.error) or (self.stopped and not self.run.check_mode)

    def headline(self) -> str:
        words, run = self.words, self.run
        if run.check_mode and not run.running:
            return str(words["check_mode"])
        if self.is_partial:
            return f"{words['partial']}: {', '.join(words['phase_names'][phase] for phase in run.asked)}"
        return str(words["outcomes"]["left" if self.left else run.outcome]).replace("ROWS", str(self.left_count))

    def to_do(self) -> str:
        """What to do now, of a run without an error."""
        words, run = self.words, self.run
        if run.check_mode:
            return str(words["nothing_check"])
        if run.running:
            process = str(run.journal.get("controller_pid", "-"))
            host = str(run.journal.get("controller", "-"))
            return str(words["running_now"]).replace("PID", process).replace("HOST", host) + ":"
        if self.is_partial:
            return str(words["nothing_partial"])
        if self.left:
            return self.left_words
        return str(
            words[{"rolled_back": "already_asked", "deployed": "nothing_now"}.get(run.outcome, "nothing_unchanged")]
        )

    def already(self) -> str:
        return self.left_words if self.left else str(self.words["already"])

    def taken_back(self) -> str:
        """What the rollback did. A planned index that somebody else has built again is not counted."""
        missing = {index["name"] for index in self.report["indexes"] if index["verdict"] == "missing"}
        dropped = missing & set(self.run.taken_back.get("built", []))
        return (
            str(self.words["taken_back_words"])
            .replace("INDEXES", str(len(dropped)))
            .replace("ROWS", str(self.report["restored"]["rows"]))
        )

    def figures(self) -> list[str]:
        """What a person asks first."""
        run, report, named = self.run, self.report, self.words["figures"]
        instances, traffic, removed = report["instances"], report["traffic"], int(report["cleanup"]["removed"])
        replaced = {one["new_pid"] for one in instances} - {one["old_pid"] for one in instances}
        present = [index for index in report["indexes"] if index["verdict"] == "present"]
        wanted = (
            ("surplus", run.cleanup.get("planned"), run.check_mode and "planned" in run.cleanup),
            ("duplicates", report["duplicates_left"], report["duplicates_left"] is not None),
            ("indexes", f"{len(present)}/{len(run.plan['indexes'])}", report["indexes"]),
            ("rows", removed, removed > 0 and not run.rolled_back),
            ("restored", report["restored"]["rows"], run.rolled_back),
            ("left", self.left_count, self.left),
            ("failures", f"{traffic['failures']}/{traffic['requests']}", int(traffic["requests"]) > 0),
            ("instances", f"{len(replaced)}/{len(instances)}", instances and not run.check_mode),
        )
        return [f"{named[name]} {value}" for name, value, is_shown in wanted if is_shown]

    def lost(self) -> str:
        """Requests that failed although the run went well: how many of how many, in per cent."""
        traffic = self.report["traffic"]
        if int(traffic["failures"]) == 0:
            return ""
        return str(
            self.words["lost"]
            .replace("FAILED", str(traffic["failures"]))
            .replace("REQUESTS", str(traffic["requests"]))
            .replace("PERCENT", f"{100 * traffic['failures'] / traffic['requests']:.2f}")
        )

    def proven(self) -> str:
        """A phase verify that has ended well has proven all of this."""
        ended_well = [phase["name"] for phase in self.report["phases"] if phase["status"] != "failed"]
        if "verify" not in ended_well or self.run.rolled_back:
            return ""
        proven = self.words["proven" if self.run.by_prisma else "proven_by_sql"]
        race = in_words(self.details.get("verify", {}).get("race") or {}, self.run.language)
        if race:
            word = "raced" if race["verdict"] == "proven" else "not_raced"
            proven += self.words[word].replace("INDEX", race["index"]).replace("WHY", race["why"])
        return str(proven.replace("INDEXES", str(len(self.report["indexes"]))))

    def sections(self) -> list[str]:
        """What the run got to, needed and was asked for. A run that stopped shows the way on before the details."""
        report, restored = self.report, self.report["restored"]
        filled = {
            "timeline": report["phases"],
            "cleanup": self.run.found.get("groups")
            or "row_count" in self.run.found
            or int(report["cleanup"]["removed"]) > 0
            or restored["rows"] > 0
            or self.left,
            "indexes": "indexes" in verification(self.run),
            "pause": "write_pause_ms" in self.build(),
            "traffic": int(report["traffic"]["requests"]) > 0,
            "instances": report["instances"],
            "checks": report["checks"] or report["known_faults"],
            "checklist": self.gates(),
        }
        shown = [section for section in _SECTIONS if filled[section]]
        return ["rollback", *shown] if self.stopped else [*shown, "rollback"]

    def empty(self, sections: Sequence[str]) -> list[str]:
        without = ("checklist", *(() if self.run.has_application else _OF_APPLICATION))
        without = (*without, "instances") if self.run.by_commands else without
        return [self.words[name] for name in _SECTIONS if name not in sections and name not in without]

    def indexes(self) -> list[dict[str, Any]]:
        """Each index that was read, beside its definition in the plan. After a rollback a missing one is good."""
        planned_definitions = planned.definitions(self.run.plan)
        good = "missing" if self.run.rolled_back else "present"
        return [
            {
                "name": index["name"],
                "verdict": index["verdict"],
                "planned": planned_definitions.get(index["name"], "-"),
                "definition": index.get("definition") or "-",
                "parts": index.get("parts", []),
                "is_good": index["verdict"] == good,
            }
            for index in verification(self.run).get("indexes", [])
        ]

    def build(self) -> Answer:
        return self.details.get("migrate") or self.run.build

    def gates(self) -> dict[str, Any]:
        """The answers of the gates that this environment asks for."""
        answers = self.details.get("prepare", {}).get("checklist", {})
        asked = answers if self.run.gates is None else self.run.gates
        return {name: in_words(answer, self.run.language) for name, answer in answers.items() if name in asked}

    def rollback_takes(self) -> str:
        """What rollback.yml takes back from now on, as the journal says it, where this run is a part of that."""
        back = self.run.ended.get("rollback", {}) if self.run.outcome in ("deployed", "stopped") else {}
        if self.run.check_mode or self.run.run_id not in back.get("runs", []):
            return ""
        if not self.run.has_application:
            return str(self.words["rollback_takes_database"]).replace("RUNS", ", ".join(back["runs"]))
        return str(
            self.words["rollback_takes"]
            .replace("RUNS", ", ".join(back["runs"]))
            .replace("BEFORE", short(back["commit_before"]))
            .replace("AFTER", short(back["commit_after"]))
        )

    def earlier(self) -> list[dict[str, Any]]:
        """What has become of the runs that this one took over or took back: their reports still say otherwise."""
        run, words = self.run, self.words
        if run.check_mode:
            return []
        notes: list[tuple[str, str, dict[str, str]]] = []
        if run.running and run.opened.get("took_over"):
            notes.append((run.opened["took_over"]["run_id"], "dead", {"outcome": "abandoned"}))
        if run.rolled_back:
            others = [other for other in run.taken_back.get("runs", []) if other != run.run_id]
            notes += [(other, "taken_back", {"taken_back_by": run.run_id}) for other in others]
        return [
            {
                "run_id": other,
                "headline": words[f"was_{what}"],
                "title": words["what_now"],
                "note": words[f"note_{what}"].replace("RUN", run.run_id),
                "data": data,
            }
            for other, what, data in notes
        ]

    def last_line(self) -> str:
        commit, run = self.report["commit"], self.run
        line = f"{'✖' if self.is_bad() else '✔'} {self.headline()}   {run.environment} | {run.application}"
        if not run.has_application:
            return line
        line += f" {short(commit['before'])}"
        if commit["after"] != commit["before"]:
            line += f" -> {short(commit['after'])}"
        return line + (
            f" ({self.words['attempted']} {short(run.commit_after)})" if run.error and run.rolled_back else ""
        )

    def last_facts(self) -> list[tuple[str, str]]:
        """The lines below the last line, each with its label; an empty one is left out."""
        run, words = self.run, self.words
        causes = self.findings[:_CAUSES]
        phase = words["phase_names"].get(run.failed_phase) or run.failed_phase or "-"
        facts = [(words["plan"], run.plan["title"][run.language])]
        facts += [(words["cause"], f"{phase}: {_cut(one['seen'].splitlines()[0])}") for one in causes]
        if run.rolled_back:
            facts.append((words["taken_back"], self.taken_back()))
        else:
            facts.append((words["status"], self.afterwards))
        facts += [(words["left"], reason) for reason in self.left]
        facts.append((words["found"], " | ".join(self.figures())))
        facts.append((words["lost_requests"], self.lost()))
        if not run.error and run.outcome != "deployed":
            facts.append((words["proven_label"], self.proven()))
        if run.error and run.rolled_back:
            facts.append((words["to_do"], self.already()))
        elif run.error:
            facts += [(words["to_do"], one["next_step"]) for one in causes]
            facts.append((words["go_on"], run.commands["again"]))
        else:
            facts.append((words["to_do"], self.to_do()))
        seconds = run.journal.get("seconds")
        facts.append((words["report"], run.report_path + ("" if seconds is None else f"   {seconds:.0f} s")))
        return [(label, text) for label, text in facts if text]


def _cut(line: str, most: int = 200) -> str:
    """A line of at most some letters; a few more are not worth the cut."""
    return line if len(line) <= most + 5 else f"{line[: most - 1]}…"
