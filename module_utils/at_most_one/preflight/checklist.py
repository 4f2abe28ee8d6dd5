"""The guide's checklist before a deployment: backup, rehearsal, notice. Evaluate each gate from evidence."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from ..errors import OperatorError
from ..findings import Finding, Phrase, joined, observed, say
from ..http.client import NoAnswer, fetch
from ..rehearsal import evidence
from ..rehearsal.evidence import Wanted
from ..system.redaction import first_line

GATES = ("backup", "rehearsal", "notice")
_TIME = re.compile(r"\b\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})")
_CLOCKS_APART = timedelta(minutes=5)
_WAIT_S = 60


@dataclass(frozen=True)
class Answer:
    """One gate. ``facts`` are kept in the journal."""

    passed: bool
    seen: str
    expected: str
    next_step: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def kept(self) -> dict[str, Any]:
        """As a mapping, with the phrases of its texts for the control node."""
        texts = {"seen": self.seen, "expected": self.expected, "next_step": self.next_step}
        phrases = {name: text.as_data() for name, text in texts.items() if isinstance(text, Phrase)}
        return {**asdict(self), **{name: str(text) for name, text in texts.items()}, "phrases": phrases}


@dataclass(frozen=True)
class Backup:
    """Where the time of the provider's newest backup comes from: given, printed by a command, or answered by a URL."""

    taken_at: str
    command: Sequence[str]
    url: str
    max_age_hours: float


@dataclass(frozen=True)
class Notice:
    """The notice to the people who work with the service, and the window that it announced. Times are ISO 8601."""

    sent: bool
    begins: str
    ends: str
    minutes: float  # the window's length where its end is not given


def told(answers: Mapping[str, Answer]) -> str:
    """The gates that are open, each with lines of its own; empty when all are passed."""
    open_gates = {name: answer for name, answer in answers.items() if not answer.passed}
    if not open_gates:
        return ""
    return "\n".join(
        [f"{len(open_gates)} of {len(answers)} gates of the checklist are open."]
        + [
            f"  Seen: [{name}] {one.seen}\n    Expected: {one.expected}\n    Next: {one.next_step}"
            for name, one in open_gates.items()
        ]
    )


def findings(answers: Mapping[str, Answer]) -> list[Finding]:
    """The same, one by one."""
    return [
        Finding(name, joined([f"[{name}]", one.seen], " "), one.expected, one.next_step)
        for name, one in answers.items()
        if not one.passed
    ]


def answered(ask: Callable[[], Answer]) -> Answer:
    """The gate's answer; what stops it is a gate that is not passed."""
    try:
        return ask()
    except OperatorError as stop:
        return Answer(False, stop.seen, stop.expected, stop.next_step)


def backup(given: Backup, now: datetime) -> Answer:
    """Whether the provider's newest backup is fresh. Raises OperatorError when its time cannot be had."""
    source = "prepare_backup_taken_at" if given.taken_at else "prepare_backup_command" if given.command else "url"
    if given.taken_at:
        text = given.taken_at
    elif given.command:
        text = _printed(given.command)
    elif given.url:
        source, text = "prepare_backup_url", _answered_by(given.url)
    else:
        raise _no_backup(
            observed("AMO-2332", "The age of the newest backup is unknown: nobody said when it was taken.")
        )
    taken_at = _one_time(text, source)
    age = now - taken_at
    hours = age.total_seconds() / 3600
    when = taken_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    if age < -_CLOCKS_APART:
        raise _no_backup(
            observed(
                "AMO-2333",
                "The newest backup is from {when} ({source}), which is in the future.",
                when=when,
                source=source,
            )
        )
    if hours > given.max_age_hours:
        raise OperatorError(
            observed(
                "AMO-2303",
                "The newest backup is from {when}, {hours} hours ago ({source}).",
                when=when,
                hours=f"{hours:.1f}",
                source=source,
            ),
            expected=say("at most {max_age_hours} hours.", max_age_hours=f"{given.max_age_hours:g}"),
            next_step=say("have one made by your provider, then run again with its time."),
        )
    seen = say(
        "backup of {when}, {hours} hours old ({source}).", when=when, hours=f"{max(hours, 0):.1f}", source=source
    )
    return Answer(
        True,
        seen,
        say("at most {max_age_hours} hours.", max_age_hours=f"{given.max_age_hours:g}"),
        say("nothing."),
        {"taken_at": when, "age_hours": round(hours, 1), "source": source},
    )


def rehearsal(path: str, reason: str, wanted: Wanted, now: datetime) -> Answer:
    """Whether this change was rehearsed; a reason in words lets it pass too, and is kept with what was missing."""
    expected = say("the evidence of a rehearsal of this plan and commit, or a reason for the journal.")
    try:
        document = evidence.read(evidence.of_any_tenant(path, wanted), wanted.how)
        evidence.judge(document, wanted, now)
    except OperatorError as stop:
        if not reason.strip():
            raise
        facts = {"reason": reason.strip(), "instead_of": str(stop.seen)}
        seen = say("no rehearsal: {reason} ({instead_of})", reason=reason.strip(), instead_of=stop.seen)
        return Answer(True, seen, expected, say("nothing."), facts)
    kept = evidence.summary(document)
    values = {**{name: kept[name] for name in ("environment", "ended_at", "plan")}, "sha256": kept["sha256"][:12]}
    if kept["plan"] == wanted.plan_id:
        seen = say("rehearsed in {environment}, ended {ended_at} ({sha256}).", **values)
    else:
        seen = say("rehearsed in {environment} as {plan}, ended {ended_at} ({sha256}).", **values)
    return Answer(True, seen, expected, say("nothing."), {"evidence": kept})


def notice(given: Notice, now: datetime, takes_seconds: float | None) -> Answer:
    """Whether the people were told, and whether now is within the window that they were told of.

    ``takes_seconds`` is how long the rehearsal took: what is left of the window has to be as long.
    """
    if not given.sent:
        raise _no_notice(observed("AMO-2334", "Nobody has confirmed the notice to the inspection team."))
    if not given.begins:
        raise _no_notice(
            observed("AMO-2335", "The notice to the inspection team is confirmed, but not for which time.")
        )
    begins = _time_of("prepare_notice_from", given.begins)
    ends = _time_of("prepare_notice_until", given.ends) if given.ends else begins + timedelta(minutes=given.minutes)
    window = say("{begins} to {ends}", begins=f"{begins:%Y-%m-%dT%H:%M:%SZ}", ends=f"{ends:%Y-%m-%dT%H:%M:%SZ}")
    if not begins <= now <= ends:
        raise _no_notice(
            observed(
                "AMO-2336",
                "It is {now}, and the inspection team was told of {window}.",
                now=f"{now:%Y-%m-%dT%H:%M:%SZ}",
                window=window,
            )
        )
    left = (ends - now).total_seconds()
    if takes_seconds is not None and takes_seconds > left:
        raise _no_notice(
            observed(
                "AMO-2337",
                "{minutes} minutes are left of the window that the inspection team was told of ({window}), "
                "and the rehearsal took {rehearsed} minutes.",
                minutes=f"{left / 60:.0f}",
                window=window,
                rehearsed=f"{takes_seconds / 60:.0f}",
            )
        )
    return Answer(
        True,
        say("sent for {window}.", window=window),
        say("the team knows of it, and now is within that time."),
        say("nothing."),
        {"from": f"{begins:%Y-%m-%dT%H:%M:%SZ}", "until": f"{ends:%Y-%m-%dT%H:%M:%SZ}"},
    )


def _printed(command: Sequence[str]) -> str:
    """What the command prints. Its output may name more than a time: nothing of it is shown but a redacted line."""
    try:
        done = subprocess.run(  # noqa: S603 (the inventory's own command, without a shell)
            list(command), capture_output=True, text=True, errors="replace", timeout=_WAIT_S, check=False
        )
    except OSError as failure:
        raise _no_backup(
            observed(
                "AMO-2338",
                "prepare_backup_command cannot be run: {command}: {reason}.",
                command=command[0],
                reason=failure.strerror,
            )
        ) from failure
    except subprocess.TimeoutExpired as late:
        raise _no_backup(
            observed(
                "AMO-2339",
                "prepare_backup_command has printed nothing after {wait_s} s: {command}.",
                wait_s=_WAIT_S,
                command=command[0],
            )
        ) from late
    if done.returncode:
        said = first_line(done.stderr or done.stdout) or say("nothing")
        raise _no_backup(
            observed(
                "AMO-2340",
                "prepare_backup_command ended with exit code {returncode} and said: {said}.",
                returncode=done.returncode,
                said=said,
            )
        )
    return done.stdout


def _answered_by(url: str) -> str:
    try:
        answer = fetch("GET", url, timeout_s=_WAIT_S)
    except NoAnswer as failure:
        raise _no_backup(
            observed("AMO-2341", "prepare_backup_url does not answer: {failure}.", failure=failure)
        ) from failure
    if answer.status != 200:
        raise _no_backup(observed("AMO-2342", "prepare_backup_url answered {status}.", status=answer.status))
    return answer.body.decode("utf-8", "replace")


def _one_time(text: str, source: str) -> datetime:
    found = sorted(set(_TIME.findall(text)))
    if len(found) != 1:
        said = (
            say("{count} times", count=len(found))
            if found
            else say("no time: {first_line}", first_line=first_line(text) or "nothing at all")
        )
        raise _no_backup(
            observed(
                "AMO-2349", "The age of the newest backup is unknown: {source} says {said}.", source=source, said=said
            )
        )
    return _time_of(source, found[0])


def _time_of(name: str, text: str) -> datetime:
    try:
        return evidence.parse_time(text)
    except ValueError:
        raise OperatorError(
            observed("AMO-2304", "{name} is {first_line}, which is no time.", name=name, first_line=first_line(text)),
            expected=say("a time with its zone, such as 2025-11-10T03:00:00Z."),
            next_step=say("correct it, then run again."),
        ) from None


def _no_backup(seen: str) -> OperatorError:
    return OperatorError(
        seen,
        expected=say("exactly one time with its zone, that of the newest backup."),
        next_step=say(
            "look the time up at your provider, then -e "
            "prepare_backup_taken_at=2025-11-10T03:00:00Z, or have the inventory's "
            "prepare_backup_command or prepare_backup_url say it."
        ),
    )


def _no_notice(seen: str) -> OperatorError:
    return OperatorError(
        seen,
        expected=say("the team knows of the deployment, and now is within the time that it was told."),
        next_step=say(
            "send it, then -e prepare_notice_sent=true -e prepare_notice_from=2025-11-10T13:00:00Z "
            "(and -e prepare_notice_until=..., or an hour from then on)."
        ),
    )


def utc_now() -> datetime:
    """Now."""
    return datetime.now(timezone.utc)
