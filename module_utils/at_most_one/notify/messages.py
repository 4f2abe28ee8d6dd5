"""Messages about a run for people who are not watching it: how each channel wants them, and how they are sent.

Sending never raises for what the other side does, and never takes longer than it is given: a deployment must not wait
for a chat. The addresses are secrets, because whoever knows one can write there: no text of this module has them.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import OperatorError
from ..findings import parse, say
from ..http.client import NoAnswer, fetch, place
from ..system.redaction import redact, redact_data
from . import letters

_ICONS = {
    **{"start": ":arrow_forward:", "hold": ":raised_hand:", "success": ":white_check_mark:"},
    **{"unchanged": ":heavy_minus_sign:", "stop": ":x:", "rollback": ":leftwards_arrow_with_hook:"},
    "alert": ":rotating_light:",
}
# Slack's own limits: https://docs.slack.dev/reference/block-kit/blocks/header-block and section-block
_HEADER, _FIELD, _FIELDS, _SECTION = 150, 2_000, 10, 3_000
_BLOCKS = 50  # a message with one more is refused: https://docs.slack.dev/reference/block-kit/blocks


@dataclass(frozen=True)
class Notice:
    """One message. ``title``, ``facts`` and ``words`` are in the reader's language; ``data`` is for programs."""

    event: str
    title: str
    facts: tuple[tuple[str, str], ...] = ()  # name and value, in the order to be read
    error: str = ""
    words: Mapping[str, str] = field(default_factory=dict)  # seen, expected, next_step
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Channel:
    """Where a message goes by HTTP. ``url`` and ``token`` are secrets."""

    name: str  # slack | webhook
    url: str = field(repr=False)
    token: str = field(default="", repr=False)


@dataclass(frozen=True)
class Mail:
    """Who gets a message as a letter, and by which server."""

    server: letters.MailServer
    sender: str
    recipients: tuple[str, ...]
    name: str = "email"


@dataclass(frozen=True)
class Outcome:
    """What came of one channel; ``problem`` is None when the other side took the message."""

    channel: str
    problem: str | None
    seconds: float


@dataclass(frozen=True)
class Allowance:
    """How long all messages of one run may wait together, and how long they have so far."""

    most_s: float
    spent_s: float = 0.0

    @property
    def left_s(self) -> float:
        return self.most_s - self.spent_s

    @property
    def is_used_up(self) -> bool:
        return self.left_s < 1


def clean(notice: Notice, secrets: Sequence[str]) -> Notice:
    """The notice without what looks like a secret, and without the known ones."""
    return Notice(
        notice.event,
        redact(notice.title, secrets),
        tuple((redact(name, secrets), redact(value, secrets)) for name, value in notice.facts),
        redact(notice.error, secrets),
        notice.words,
        redact_data(notice.data, secrets),
    )


def for_slack(notice: Notice) -> dict[str, Any]:
    """The body for an incoming webhook: a line for the notification, blocks for the channel."""
    fields = [
        {"type": "mrkdwn", "text": _cut(f"*{_escaped(name)}*\n{_escaped(value)}", _FIELD)}
        for name, value in notice.facts
    ]
    title = f"{_ICONS[notice.event]} {notice.title}"
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": _cut(title, _HEADER), "emoji": True}}
    ]
    blocks += [{"type": "section", "fields": fields[at : at + _FIELDS]} for at in range(0, len(fields), _FIELDS)]
    for finding in findings(notice):
        lines = [f"*{_escaped(notice.words.get(key, key))}:* {_escaped(text)}" for key, text in finding.items() if text]
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": _cut("\n".join(lines), _SECTION)}})
    if more := blocks[_BLOCKS:]:
        blocks[_BLOCKS - 1 :] = [{"type": "section", "text": {"type": "mrkdwn", "text": f"… +{len(more) + 1}"}}]
    return {"text": _escaped(notice.title), "blocks": blocks}


def for_webhook(notice: Notice) -> dict[str, Any]:
    """The body for a program: the same data whatever the language, and the text that a person would get."""
    return {
        "event": notice.event,
        "title": notice.title,
        "text": as_text(notice),
        **notice.data,
        "findings": findings(notice),
    }


def as_text(notice: Notice) -> str:
    """The whole message as plain text: the e-mail's body."""
    lines = [notice.title, "", *(f"{name}: {value}" for name, value in notice.facts)]
    for finding in findings(notice):
        lines += ["", *(f"{notice.words.get(key, key)}: {text}" for key, text in finding.items() if text)]
    return "\n".join(lines)


def findings(notice: Notice) -> list[dict[str, str]]:
    """The error, taken apart; what came after it stands behind the last thing to do."""
    if not notice.error.strip():
        return []
    message = parse(notice.error)
    found = [finding.phrases() for finding in message.findings]
    found[-1]["next_step"] = f"{found[-1]['next_step']}\n{message.afterwards}".strip()
    return found


def send(notice: Notice, channels: Sequence[Channel | Mail], *, within_s: float) -> list[Outcome]:
    """Send to every channel at once, and return when all have answered or after ``within_s`` seconds.

    One attempt each. A name that does not resolve, a server that takes the connection and says nothing, one that sends
    a byte a second: none of them can hold the caller longer than that, because each has a thread that is left behind.
    """
    began = time.monotonic()
    done: dict[str, Outcome] = {}

    def work(channel: Channel | Mail) -> None:
        try:
            problem = (
                _mail(channel, notice, within_s) if isinstance(channel, Mail) else _post(channel, notice, within_s)
            )
        except Exception as failure:  # whatever it is, it must not be taken for a server that does not answer
            problem = say("it cannot be sent ({failure})", failure=type(failure).__name__)
        done[channel.name] = Outcome(channel.name, problem, round(time.monotonic() - began, 3))

    workers = [threading.Thread(target=work, args=(channel,), daemon=True) for channel in channels]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(max(0.0, began + within_s - time.monotonic()))
    late = say("no answer within {within_s} s", within_s=f"{within_s:g}")
    finished = dict(done)  # a thread that ends from here on is late
    return [finished.get(channel.name) or Outcome(channel.name, late, round(within_s, 3)) for channel in channels]


def _mail(channel: Mail, notice: Notice, timeout_s: float) -> str | None:
    try:
        letter = letters.letter(notice.title, as_text(notice), channel.sender, channel.recipients)
    except ValueError:  # not a valid header
        return say("notify_email_from or notify_email_to is no address")
    return letters.post(channel.server, letter, timeout_s)


def _post(channel: Channel, notice: Notice, timeout_s: float) -> str | None:
    """What went wrong, as a phrase without the address; None when the answer was 2xx."""
    body = for_slack(notice) if channel.name == "slack" else for_webhook(notice)
    headers = {"Content-Type": "application/json; charset=utf-8"}
    if channel.token:
        headers["Authorization"] = f"Bearer {channel.token}"
    try:
        place(channel.url)
        answer = fetch(
            "POST",
            channel.url,
            timeout_s=timeout_s,
            headers=headers,
            body=json.dumps(body, ensure_ascii=False).encode(),
        )
    except NoAnswer as failure:
        return say("no answer ({failure})", failure=failure.kind)
    except (OperatorError, ValueError):  # http.client refuses control characters in an address with ValueError
        return say("the address cannot be used: it needs http:// or https:// and a host")
    return None if 200 <= answer.status < 300 else say("status {code}", code=answer.status)


def _escaped(text: str) -> str:
    """Slack reads three characters as markup: https://docs.slack.dev/messaging/formatting-message-text"""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
