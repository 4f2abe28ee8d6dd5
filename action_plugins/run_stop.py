"""Action of run_stop: what a run that failed has reached, and how it ends, in the journal and in words.

It calls modules on the database runner and never fails: what cannot be done or read is a part of the error that it
returns, because the report, the message and the way back still have to come.
"""

from __future__ import annotations

from typing import Any

from ansible import context
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import action_loader

action_loader.get("in_process", class_only=True)  # lets the core be imported here
from ansible.module_utils.at_most_one.findings import Phrase, handed_over, reason  # noqa: E402
from ansible.module_utils.at_most_one.runs import stopping  # noqa: E402
from ansible.module_utils.at_most_one.system import command_line, project  # noqa: E402

Answer = dict[str, Any]


class ActionModule(ActionBase):
    """With ``begun`` the failed phase is recorded and read; with ``ended`` the fence is settled and the run closed."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> Answer:
        super().run(tmp, task_vars)
        self._variables = task_vars or {}
        begins = self._task.args["state"] == "begun"
        with command_line.about(str(self._task.args["plan"]["id"])):  # where it is one of a tenant
            answer = self._begin() if begins else self._end(dict(self._task.args["begun"]))
        return {"changed": False, **answer}

    def _begin(self) -> Answer:
        given = self._task.args
        end: Answer = {"outcome": "stopped", "error": given["error"], "failed_phase": given["phase"]}
        end["findings"], end["afterwards"] = given.get("findings", []), list(given.get("afterwards", []))
        end["changed_words"] = self._changed().as_data()
        details = {"error": given["error"], "removed": given["removed"], "findings": given.get("recorded_findings", [])}
        read = self._journal(
            "recorded", phase=given["phase"], status="failed", earlier=given["earlier"], details=details
        )
        if not read.get("failed"):
            read = self._call("deploy_changes_info", plan=given["plan"])
        if read.get("failed"):
            _add(end, stopping.unsettled(read, handed_over(end["changed_words"])))
            return {**end, "reached": {}, "is_settled": False, "may_go_back": False}
        return {**end, "reached": read["reached"], "is_settled": True, "may_go_back": given["may_go_back"]}

    def _end(self, begun: Answer) -> Answer:
        kept = ("outcome", "error", "findings", "afterwards", "failed_phase", "reached")
        end: Answer = {name: begun[name] for name in kept}
        if begun["may_go_back"]:
            self._add_the_way_back(end)
        if not begun["is_settled"]:
            return end
        if end["outcome"] == "stopped" and end["reached"]["point"] == "nothing":
            self._lower_fence(end)
        closed = self._journal("closed", outcome=end["outcome"], failed_phase=end["failed_phase"], error=end["error"])
        if closed.get("failed"):
            _add(end, stopping.unsettled(closed, handed_over(begun["changed_words"])))
            return end
        return {**end, **{name: closed[name] for name in ("run", "phases", "rollback") if name in closed}}

    def _add_the_way_back(self, end: Answer) -> None:
        """Add to ``end`` what became of the way back, and where it went well the outcome."""
        given = self._task.args
        way, done = given["way"], given["done"]
        if not given["back_error"] and not way.get("is_needed"):
            return
        if not given["back_error"] and done.get("sentence"):
            end["outcome"] = "rolled_back"
            _add(end, stopping.went_back(way, done))
            return
        failed = self._variables.get("ansible_failed_result", {}) if given["back_error"] else done
        words = stopping.back_failed(
            handed_over(given["back_error"]) if given["back_error"] else reason(done),
            stopping.later_run(failed),
            end["failed_phase"],
            len(given["plan"]["indexes"]),
            end["reached"],
            self._call("deploy_changes_info", plan=given["plan"]).get("reached"),
            given["paths"],
        )
        _add(end, words)

    def _lower_fence(self, end: Answer) -> None:
        """Lower a fence without a removed row, because the table is as it was; add to ``end`` where it stays.

        After the first removed row it stays, so that the rule holds until the next start goes on. The catalog and the
        archive say which; a killed run could not leave a note.
        """
        given = self._task.args
        if not (end["reached"]["fence"] or given["fence_raised"]):
            return
        lowered = self._call("write_fence", state="lowered", plan=given["plan"])
        if lowered.get("failed"):
            _add(end, stopping.fence_stays(lowered))

    def _changed(self) -> Phrase:
        given = self._task.args
        answers = zip(given["hosts"], zip(given["links"], given["reloads"], strict=True), strict=True)
        return stopping.changed(int(given["removed"]), bool(given["built"]), dict(answers))

    def _journal(self, state: str, **options: Any) -> Answer:
        return self._call("deploy_run", state=state, **options)

    def _call(self, module: str, **options: Any) -> Answer:
        """The result of a module on the database runner; a connection that is lost is a failure like any other."""
        name = self._task.action.rpartition("run_stop")[0] + module  # in a collection with the collection's name
        given = {"login": self._task.args["login"], "run_id": self._task.args["run_id"], **options}
        try:
            result: Answer = self._execute_module(module_name=name, module_args=given, task_vars=self._variables)
        except AnsibleError as error:
            return {"failed": True, "msg": str(error)}
        return {**result, "failed": bool(result.get("failed"))}


def _add(end: Answer, words: Phrase) -> None:
    """A line behind the first error, with this run's options in its commands; and the phrase that it is."""
    end["error"] += "\n" + command_line.fill(words, context.CLIARGS, str(project.base()))
    end["afterwards"].append(words.as_data())
