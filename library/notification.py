#!/usr/bin/python
"""Ansible module: tell people about a run by Slack, webhook and e-mail, within a bounded time, without ever failing."""

from __future__ import annotations

DOCUMENTATION = r"""
module: notification
short_description: Tell people what has happened, by Slack, a webhook and a mail server, and never wait for them
description:
  - Sends to all given channels at once, once, and returns when they have answered or when O(timeout_s) is over.
  - All messages of a run together wait at most O(max_delay_s). Once that is used up it sends no more, and says so once.
  - A channel that does not take the message is a warning and an entry in RV(undelivered), never a failed task.
  - What looks like a secret, and every value of O(secrets), is taken out of the message before it is sent.
options:
  event:
    description: What has happened.
    type: str
    choices: [start, hold, success, unchanged, stop, rollback, alert]
    required: true
  events:
    description: The events that people want to be told of.
    type: list
    elements: str
    choices: [start, hold, success, unchanged, stop, rollback, alert]
    default: [start, hold, success, unchanged, stop, rollback, alert]
  environment:
    description: The environment.
    type: str
    required: true
  application:
    description: The application.
    type: str
    required: true
  language:
    description: The reader's language.
    type: str
    choices: [en, ko]
    required: true
  words:
    description: The words of that language, as C(roles/notify/files/words_<language>.yml) has them.
    type: dict
    required: true
  playbook:
    description: The playbook that was started.
    type: str
    default: ""
  report:
    description:
      - The run's C(report.json), written before the message; what the message says of the run stands there.
      - Without it nothing is said of a run.
    type: path
  plan:
    description: The plan that it is about.
    type: dict
    default: {}
  alert:
    description:
      - Of an alert its C(kind), which names its title, and its C(error) or what is C(recovered), each with C(name) and
        C(since). M(watch_report) and M(monitor_report) return it.
    type: dict
    default: {}
  slack_url:
    description: Address of an incoming webhook of Slack. Whoever knows it can write there.
    type: str
    default: ""
  webhook_url:
    description: Where to send the message as JSON.
    type: str
    default: ""
  webhook_token:
    description: Sent to O(webhook_url) as the bearer's token.
    type: str
    default: ""
  email:
    description:
      - The message as a letter. Without C(to) none is written.
      - The mail server's certificate is checked, against the machine's own or those of E(SSL_CERT_FILE). An account's
        password never goes over a connection that may be plain, with V(never) or V(try) none is made with one.
    type: dict
    default: {}
    suboptions:
      to: {description: Who gets it., type: list, elements: str, default: []}
      sender: {description: Who it is from., type: str, default: at-most-one}
      host: {description: The mail server., type: str, default: localhost}
      port: {description: Its port., type: int, default: 25}
      secure:
        description: How TLS begins; V(always) is from the first byte, V(try) takes what is offered.
        type: str
        choices: [starttls, always, try, never]
        default: starttls
      user: {description: Account on the mail server; empty where none is asked for., type: str, default: ""}
      password: {description: Its password., type: str, default: ""}
  secrets:
    description: Values that must not be in a message.
    type: list
    elements: str
    default: []
  timeout_s:
    description: Seconds after which the task goes on, whoever has not answered.
    type: float
    default: 2
  max_delay_s:
    description: Seconds that all messages of one run may wait together.
    type: float
    default: 4
  earlier:
    description: What the message before it, in the same run, returned.
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
    description: Sends nothing; says what would be sent.
  diff_mode:
    support: none
    description: It changes nothing here.
extends_documentation_fragment:
  - at_most_one.in_process
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Say that the deployment has begun
  notification:
    event: start
    environment: production
    application: aedpics
    language: en
    words: "{{ lookup('ansible.builtin.file', 'words_en.yml') | from_yaml }}"
    report: artifacts/production/20251110T053000Z-1a2b3c/report.json
    plan: "{{ plan }}"
    slack_url: "{{ vault_slack_webhook_url }}"
    earlier: "{{ sent | default({}) }}"
  register: sent
"""

RETURN = r"""
sent:
  description: The channels that have taken the message.
  returned: always
  type: list
  elements: str
  sample: [slack]
undelivered:
  description: The channels that have not, each with C(channel), C(problem) and C(seconds); no address is in it.
  returned: always
  type: list
  elements: dict
  sample: [{channel: webhook, problem: no answer (refused), seconds: 0.002}]
delivered:
  description: Whether this message and those before it have each reached a channel, or were to reach none.
  returned: always
  type: bool
  sample: true
seconds:
  description: How long this message has waited.
  returned: always
  type: float
  sample: 0.214
spent_s:
  description: How long this message and those before it have waited.
  returned: always
  type: float
  sample: 0.214
given_up:
  description: Whether this message, or one before it, was not sent because O(max_delay_s) was used up.
  returned: always
  type: bool
  sample: false
text:
  description: The message as plain text; empty where nobody is told.
  returned: always
  type: str
  sample: "Deployment has begun: production\n\nCommit: 4f743598c145"
"""

import json
import os
import time
from dataclasses import asdict
from typing import Any

from ansible.module_utils.at_most_one.findings import say
from ansible.module_utils.at_most_one.notify import letters, messages, notices
from ansible.module_utils.at_most_one_entry import Call, run

EMAIL = {
    "to": {"type": "list", "elements": "str", "default": []},
    "sender": {"type": "str", "default": "at-most-one"},
    "host": {"type": "str", "default": "localhost"},
    "port": {"type": "int", "default": 25},
    "secure": {"type": "str", "default": "starttls", "choices": ["starttls", "always", "try", "never"]},
    "user": {"type": "str", "default": ""},
    "password": {"type": "str", "default": "", "no_log": True},
}
EVENTS = ["start", "hold", "success", "unchanged", "stop", "rollback", "alert"]
OPTIONS = {
    "event": {"type": "str", "choices": EVENTS, "required": True},
    "events": {"type": "list", "elements": "str", "choices": EVENTS, "default": EVENTS},
    "environment": {"type": "str", "required": True},
    "application": {"type": "str", "required": True},
    "language": {"type": "str", "choices": ["en", "ko"], "required": True},
    "words": {"type": "dict", "required": True},
    "playbook": {"type": "str", "default": ""},
    "report": {"type": "path"},
    "plan": {"type": "dict", "default": {}},
    "alert": {"type": "dict", "default": {}},
    "slack_url": {"type": "str", "default": "", "no_log": True},
    "webhook_url": {"type": "str", "default": "", "no_log": True},
    "webhook_token": {"type": "str", "default": "", "no_log": True},
    "email": {"type": "dict", "default": {}, "options": EMAIL, "apply_defaults": True},
    "secrets": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "timeout_s": {"type": "float", "default": 2.0},
    "max_delay_s": {"type": "float", "default": 4.0},
    "earlier": {"type": "dict", "default": {}},
}


def act(call: Call) -> dict[str, Any]:
    given = call.params
    # Not the whole: its own invocation has that of the message before it, and so on.
    kept = {"spent_s": 0.0, "given_up": False, "delivered": True}
    earlier = given["earlier"] = {name: given["earlier"].get(name, default) for name, default in kept.items()}
    allowance = messages.Allowance(given["max_delay_s"], float(earlier["spent_s"]))
    given_up = bool(earlier["given_up"])
    channels = _channels(given) if given["event"] in given["events"] else []
    text, outcomes = "", list[messages.Outcome]()
    if channels and allowance.is_used_up:
        if not given_up:
            call.warn(given["words"]["given_up"])
        given_up = True
    elif channels:
        notice = messages.clean(notices.notice(_event(call), given["words"]), _secrets(given))
        text = messages.as_text(notice)
        if not call.check_mode:
            outcomes = messages.send(notice, channels, within_s=min(allowance.left_s, given["timeout_s"]))
    undelivered = [{**asdict(outcome), "problem": str(outcome.problem)} for outcome in outcomes if outcome.problem]
    for outcome in (one for one in outcomes if one.problem):
        call.warn(
            say(
                "Notification by {channel} was not delivered: {problem}.",
                channel=outcome.channel,
                problem=outcome.problem,
            )
        )
    sent = [outcome.channel for outcome in outcomes if not outcome.problem]
    seconds = max((outcome.seconds for outcome in outcomes), default=0.0)
    return {
        "changed": False,
        "sent": sent,
        "undelivered": undelivered,
        "delivered": bool(earlier["delivered"] and not given_up and (sent or not undelivered)),
        "seconds": seconds,
        "spent_s": round(allowance.spent_s + seconds, 3),
        "given_up": given_up,
        "text": text,
    }


def _channels(given: dict[str, Any]) -> list[messages.Channel | messages.Mail]:
    channels: list[messages.Channel | messages.Mail] = []
    if given["slack_url"]:
        channels.append(messages.Channel("slack", given["slack_url"]))
    if given["webhook_url"]:
        channels.append(messages.Channel("webhook", given["webhook_url"], given["webhook_token"]))
    mail = given["email"]
    if mail["to"]:
        server = letters.MailServer(*(mail[name] for name in ("host", "port", "secure", "user", "password")))
        channels.append(messages.Mail(server, mail["sender"], tuple(mail["to"])))
    return channels


def _secrets(given: dict[str, Any]) -> list[str]:
    addresses = [given["slack_url"], given["webhook_url"], given["webhook_token"], given["email"]["password"]]
    return [secret for secret in [*given["secrets"], *addresses] if secret]


def _event(call: Call) -> notices.Event:
    given = call.params
    return notices.Event(
        given["event"],
        given["environment"],
        given["application"],
        given["language"],
        at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        front_door=given["playbook"],
        alert=given["alert"],
        plan=given["plan"],
        report=_report(call),
        report_path=os.path.dirname(given["report"] or ""),
    )


def _report(call: Call) -> dict[str, Any]:
    if not call.params["report"]:
        return {}
    try:
        with open(call.params["report"], encoding="utf-8") as file:
            return dict(json.load(file))
    except (OSError, ValueError) as failure:  # a message without the run's facts is better than none
        call.warn(
            say(
                "{report} cannot be read ({failure}); the message says nothing of the run.",
                report=call.params["report"],
                failure=failure,
            )
        )
        return {}


def main() -> None:
    """Entry point."""
    run(OPTIONS, act, needs_psycopg2=False)


if __name__ == "__main__":
    main()
