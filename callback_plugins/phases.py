"""What a person sees while a run goes on: numbered phases, what is waited for, whole messages, three-line errors."""

from __future__ import annotations

DOCUMENTATION = r"""
name: phases
type: stdout
short_description: Numbered phases, one live line, errors as seen, expected and next
description:
  - One block for each numbered play. On a terminal its last line says what is being waited for, and for how long.
    With no terminal, in CI or with NO_COLOR there are plain lines without control characters.
  - A message, which is what a debug task prints, comes out whole. An error says what was seen, what was expected and
    what to do next.
  - With C(-v) and more it prints what Ansible's default callback prints, and the table of phases at the end.
  - The variable C(report_language) chooses Korean or English, also for errors, which have the same identifier in both.
    The names of plays and tasks are in that language, too. With C(-v) and more they are English, as in the code.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
requirements:
  - set as stdout in configuration
author:
  - the at-most-one maintainers (@at-most-one)
"""

import functools
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from ansible import constants as C
from ansible import context
from ansible.plugins.callback.default import CallbackModule as DefaultCallback
from ansible.plugins.loader import filter_loader
from ansible.utils import color

sys.path.insert(0, str(Path(__file__).parents[1] / "module_utils"))
from at_most_one import catalogue, findings
from at_most_one.display import progress, terminal
from at_most_one.display.translations import WORDS
from at_most_one.system import live_step, project
from at_most_one.system.redaction import redact

STILL_S = 60.0  # in a log: how often a long task says that it still runs
WIDE = 100  # columns from which on the seconds of the run before stand beside this one's
LAST_WORDS = 78  # columns of the lines at the end, which get copied into chats and tickets
VALIDATES = ("validate_argument_spec", "ansible.builtin.validate_argument_spec")
PROMPTS = ("pause", "ansible.builtin.pause", "ansible.legacy.pause")


class CallbackModule(DefaultCallback):
    """Says less than Ansible's own callback, as long as nobody asks for more with -v."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "phases"

    def __init__(self) -> None:
        super().__init__()
        self._phases: list[progress.Phase] = []
        self._running: progress.Running | None = None
        self._hosts: list[str] = []
        self._language = "en"
        self._words: progress.Words = WORDS["en"]
        self._shown_errors: list[str] = []
        self._shown_behind: list[str] = []
        self._failed_task = ""
        self._closing: list[str] = []  # what is to be read last
        self._ended_by: str | None = None  # the task that had failed when the run said its last words
        self._earlier: dict[str, float] | None = None
        self._plan: object = ""
        self._ticker: terminal.Ticker | None = None
        self._record: live_step.Record | None = None

    @property
    def _verbose(self) -> bool:
        return bool(self._display.verbosity > 0)

    @property
    def _check_mode(self) -> bool:
        return bool(context.CLIARGS.get("check"))

    @property
    def _columns(self) -> int | None:
        """A terminal's width. None in a log, where a line stays whole, so that it can be searched for."""
        return shutil.get_terminal_size().columns if self._ticker and self._ticker.live else None

    def _say(self, text: str = "", colour: str | None = None, most: int | None = None) -> None:
        """As wide as the terminal, at ``most`` so many columns; in a log every line stays whole."""
        columns = min(self._columns, most) if self._columns and most else self._columns
        self._display.display(terminal.flow(terminal.harmless(text), columns), color=colour)

    def _say_indented(self, text: str, colour: str | None = None) -> None:
        """One line of an error."""
        self._say("\n".join(terminal.wrap(text, self._columns, "    ")), colour)

    def _begin(self) -> None:
        """Start the ticker; whatever else Ansible displays takes the live line away first."""
        # ansible-runner gives every run a terminal; its own callback, which inherits this one, wants plain lines.
        own = type(self) is CallbackModule
        live = own and terminal.is_live(sys.stdout.isatty(), os.environ)
        if not live and not C.ANSIBLE_FORCE_COLOR:
            color.ANSIBLE_COLOR = False
        if self._verbose or not own:
            return
        ticker = terminal.Ticker(sys.stdout.fileno(), live=live, still_s=STILL_S, compose=self._status)
        display = self._display.display

        def displayed(*arguments: Any, **options: Any) -> Any:
            with ticker.hidden():
                ticker.touch()
                return display(*arguments, **options)

        self._display.display = displayed  # type: ignore[method-assign]  # Ansible has no hook for what it displays
        self._ticker = ticker
        self._record = live_step.Record()
        ticker.start()

    def _status(self, frame: str) -> str:
        running, phase = self._running, self._phases[-1] if self._phases else None
        if running is None or phase is None or running.prompts:
            return ""
        told = {} if self._record is None or running.secret else self._record.read()
        work = progress.at_work(told, self._words)
        return progress.status(frame, phase, running, len(self._hosts), self._words, work)

    # ---- Plays and tasks -------------------------------------------------------------------------------------------

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self._begin()
        if self._verbose:
            super().v2_playbook_on_start(playbook)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._end_task()
        variables = self._variables(play)
        language = "ko" if variables.get("report_language") == "ko" else "en"
        self._language, self._words = language, WORDS[language]
        self._plan = variables.get("plan")
        name = play.get_name().strip()
        if not self._phases or self._phases[-1].name != name:  # not the next batch of the same one
            self._end_phase()
            self._failed_task = ""
            translation = progress.translated(name, language)
            self._phases.append(progress.Phase(name, str(play.get_vars().get("run_phase", "")), translation))
        if self._earlier is None and "environment_name" in variables:
            artifacts = progress.reports_in(variables.get("at_most_one_artifacts"), project.base())
            self._earlier = progress.earlier_seconds(artifacts, str(variables["environment_name"]))
        if self._verbose:
            super().v2_playbook_on_play_start(play)
        self._play = play

    def _about(self, task: Any, filter_: Any) -> Callable[..., Any]:
        """A filter that names commands, as a template of this task would have it: about the tenant that it is at."""
        variables = {"plan": self._plan, "plan_tenant": task.get_vars().get("plan_tenant")}
        return functools.partial(filter_.j2_function, variables)

    def _variables(self, play: Any) -> Mapping[str, Any]:
        """Those of the play's first host. What cannot be had is not worth a run."""
        try:
            manager = play.get_variable_manager()
            hosts = manager._inventory.get_hosts(play.hosts)
            self._hosts = [host.get_name() for host in hosts]
            return dict(manager.get_vars(play=play, host=hosts[0] if hosts else None))
        except Exception:
            return {}

    def _show_phase(self) -> None:
        """When its first task begins: a play that tags leave out is not shown. Ansible still checks its arguments."""
        phase = self._phases[-1]
        if not phase.shown:
            phase.shown, phase.begun = True, time.monotonic()
            if not self._verbose:
                self._say()
                self._say(
                    phase.title + (f" [{self._words['check_mode']}]" if self._check_mode else ""), C.COLOR_HIGHLIGHT
                )

    def _end_phase(self) -> None:
        if self._phases:
            self._phases[-1].ended = time.monotonic()

    def _task_start(self, task: Any, prefix: str | None = None) -> None:
        self._end_task()
        if task.action not in VALIDATES:
            self._show_phase()
        if self._verbose:
            super()._task_start(task, prefix)
        self._last_task_name = name = task.get_name().strip()
        if task._role and name.startswith(f"{task._role.get_name()} : "):
            name = name.split(" : ", 1)[1]  # the phase has said which role it is
        shown = catalogue.name("task", name, self._language)
        if self._record is not None:
            self._record.clear()
        self._running = progress.Running(shown, prompts=task.action in PROMPTS, secret=bool(task.no_log))

    def _end_task(self) -> None:
        running, self._running = self._running, None
        if running and running.changed:
            self._phases[-1].changed = True
            if not self._verbose:
                line = progress.changed_line(running, len(self._hosts), self._check_mode, self._words)
                self._say(line, C.COLOR_CHANGED)

    # ---- Results ---------------------------------------------------------------------------------------------------

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        if self._running:
            self._running.waiting[host.get_name()] = None

    def _answered(self, result: Any) -> None:
        if self._running:
            self._running.waiting.pop(result.host.get_name(), None)

    def v2_runner_on_ok(self, result: Any) -> None:
        self._answered(result)
        if result.result.get("changed") and self._running:
            self._running.changed[result.host.get_name()] = None
            if not self._check_mode:  # where a module returns what there is, not what there will be
                self._running.fact = self._running.fact or progress.fact(self._in_words(result.result), self._words)
        if self._verbose:
            super().v2_runner_on_ok(result)
            return
        self._handle_warnings(result.result)
        if result.task.action in C._ACTION_DEBUG and not result.task.loop:
            self._message(result)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        if self._verbose:
            super().v2_runner_item_on_ok(result)
        elif result.task.action in C._ACTION_DEBUG:
            self._message(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._answered(result)
        if self._verbose:
            super().v2_runner_on_skipped(result)

    def v2_runner_item_on_skipped(self, result: Any) -> None:
        if self._verbose:
            super().v2_runner_item_on_skipped(result)

    def v2_runner_retry(self, result: Any) -> None:
        if self._verbose:
            super().v2_runner_retry(result)
        elif self._running:
            self._running.note = f" [{result.result.get('attempts', 0)}/{result.result.get('retries', 0)}]"

    def v2_playbook_on_include(self, included_file: Any) -> None:
        if self._verbose:
            super().v2_playbook_on_include(included_file)

    def v2_on_file_diff(self, result: Any) -> None:
        if self._verbose:
            super().v2_on_file_diff(result)
            return
        answers = result.result.get("results", []) if result.task.loop else [result.result]
        for answer in answers:
            if answer.get("diff") and answer.get("changed") and (text := self._get_diff(answer["diff"])):
                self._display.display(text.rstrip("\n"))  # as it stands: it may be applied

    def _message(self, result: Any) -> None:
        """A debug task, whole: its text as it stands, anything else as YAML. The last phase's waits for the end."""
        shown = {key: value for key, value in result.result.items() if not key.startswith("_")}
        if "censored" in shown:
            text = self._words["hidden"]
        elif isinstance(shown.get("msg"), str):
            text = str(shown["msg"]).rstrip()
        else:
            value = shown.get("msg", {key: shown[key] for key in shown if key not in self._hide_in_debug})
            plain = json.loads(json.dumps(value, default=str))
            text = yaml.safe_dump(plain, allow_unicode=True, sort_keys=False).rstrip()
        if len(self._hosts) > 1 and not result.task.run_once:
            text = f"[{result.host.get_name()}] {text}"
        if result.task.vars.get("_run_left_out"):
            self._phases[-1].left_out = True
        if result.task.vars.get("_report_last_words"):
            self._ended_by = self._failed_task
            self._closing.append(text)
        elif self._phases[-1].closes:
            self._closing.append(text)
        else:
            self._say(text)

    def _in_words(self, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        """A module's answer with its summary in the reader's language."""
        if "summary" not in answer:
            return answer
        return {**answer, "summary": catalogue.render(findings.of_answer(answer, "summary"), self._language)}

    def _handle_warnings(self, res: Any) -> None:
        """A warning that is a phrase, as the control node says it; any other as it stands."""
        handed = map(findings.handed_over, res.pop("warning_phrases", None) or [])
        phrases = {str(phrase): phrase for phrase in handed if isinstance(phrase, findings.Phrase)}
        current = self._current_task_result
        if phrases and current is not None and res.pop("warnings", None):
            told = self._about(current.task, filter_loader.get("at_most_one_told"))
            for warning in current.warnings:
                if phrase := phrases.get(warning.event.msg):
                    (shown,) = told([phrase.as_data()], self._language)
                    warning = replace(warning, event=replace(warning.event, msg=shown["text"]))
                self._display._warning(warning)
        super()._handle_warnings(res)

    # ---- Errors ----------------------------------------------------------------------------------------------------

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._answered(result)
        if self._verbose:
            super().v2_runner_on_failed(result, ignore_errors)
            return
        self._handle_warnings(result.result)
        if ignore_errors:
            name = self._running.name if self._running else self._last_task_name
            self._say(f"  {name}: {self._words['ignored']}", C.COLOR_SKIP)
        elif "censored" in result.result:
            self._error(result, self._words["hidden"])
        else:
            # The filters that make the report's error: a command with what it printed last, and no secret.
            first_error = self._about(result.task, filter_loader.get("at_most_one_first_error"))
            first_findings = self._about(result.task, filter_loader.get("at_most_one_first_findings"))
            told = self._about(result.task, filter_loader.get("at_most_one_told"))
            failed = [{"ansible_failed_result": result.result}]
            behind = told(result.result.get("afterwards") or [], self._language)
            self._error(
                result,
                str(first_error(failed)),
                first_findings(failed, self._language),
                [one["text"] for one in behind],
            )

    def v2_runner_item_on_failed(self, result: Any) -> None:
        if self._verbose:
            super().v2_runner_item_on_failed(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._answered(result)
        if self._verbose:
            super().v2_runner_on_unreachable(result)
            return
        host, words = result.host.get_name(), self._words
        inventory = os.path.relpath((context.CLIARGS.get("inventory") or ["inventories"])[0])
        seen = words["unreachable"].format(host=host, message=redact(str(result.result.get("msg", ""))))
        following = words["reach_next"].format(host=host, inventory=inventory)
        self._error(result, f"{seen} Expected: {words['reach']} Next: {following}")

    def _error(
        self, result: Any, text: str, found: Sequence[Mapping[str, Any]] = (), behind: Sequence[str] = ()
    ) -> None:
        """Three lines for each finding, those ``found`` or, without any, those that the text is taken apart into.

        What came ``behind`` the first error stands below it. What a rescue repeats of an error is not said twice.
        """
        host, words = result.host.get_name(), self._words
        if text in self._shown_errors:
            self._say(f"    {words['also']} {host}", C.COLOR_ERROR)
            return
        known = next((shown for shown in self._shown_errors if text.startswith(shown)), "")
        self._shown_errors.insert(0, text)  # the longest first: each repeats the one before
        message = findings.parse(text.removeprefix(known))
        new = [line for line in behind if line not in self._shown_behind]
        self._shown_behind += new
        afterwards = "\n".join(new) if behind else message.afterwards
        if message.report and self._ended_by is None:
            self._closing.append(f"{words['report']} {message.report}")
        if known:
            if added := afterwards if behind else f"{message.findings[0].seen}\n{afterwards}".strip():
                self._say_indented(added, C.COLOR_ERROR)
            return
        self._show_phase()
        name = self._running.name if self._running else ""
        self._failed_task = self._failed_task or name  # the first one; what fails in a rescue comes of it
        self._say(f"  ✖ {name}" + (f" [{host}]" if len(self._hosts) > 1 else ""), C.COLOR_ERROR)
        if message.head and not found:  # how many there are
            self._say_indented(message.head, C.COLOR_ERROR)
        for finding in found or [one.phrases() for one in message.findings]:
            identifier = f"   {finding['identifier']}" if finding.get("identifier") else ""
            self._say_indented(finding["seen"] + identifier, C.COLOR_ERROR)
            if finding["expected"]:
                self._say_indented(f"{words['expected']} {finding['expected']}")
            self._say_indented(f"{words['next']} {finding['next_step'] or words['more']}")
        if afterwards:
            self._say_indented(afterwards)

    def v2_playbook_on_no_hosts_matched(self) -> None:
        if self._verbose:
            super().v2_playbook_on_no_hosts_matched()
        elif self._phases:
            self._show_phase()
            self._say(f"  {self._words['no_host']}", C.COLOR_SKIP)

    def v2_playbook_on_no_hosts_remaining(self) -> None:
        if self._verbose:
            super().v2_playbook_on_no_hosts_remaining()

    # ---- The end ---------------------------------------------------------------------------------------------------

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._end_task()
        self._end_phase()
        if self._ticker:
            self._ticker.stop()
        counts = {host: stats.summarize(host) for host in sorted(stats.processed)}
        failed = any(counted["failures"] or counted["unreachable"] for counted in counts.values())
        if self._verbose:
            super().v2_playbook_on_stats(stats)
        self._say()
        shown = [phase for phase in self._phases if phase.shown]
        words, ended = self._words, self._ended_by is not None
        narrow = self._columns is not None and self._columns < WIDE
        table = progress.table(
            shown,
            stopped=failed,
            check_mode=self._check_mode,
            earlier={} if narrow else self._earlier or {},
            words=words,
            total=not ended,
        )
        for line, red in table:
            self._say(line, C.COLOR_ERROR if red else None)
        if not self._verbose:
            for host, counted in counts.items():
                self._say(progress.recap_line(host, counted), C.COLOR_ERROR if counted["failures"] else None)
        colour = C.COLOR_ERROR if failed else C.COLOR_OK
        if failed and shown and self._failed_task != self._ended_by:
            self._closing.insert(0, f"{words['stopped_in']} {shown[-1].title}: {self._failed_task}".rstrip(": "))
        for number, text in enumerate(self._closing):
            self._say(("" if number else "\n") + text, colour, LAST_WORDS)
