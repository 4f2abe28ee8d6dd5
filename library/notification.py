#!/usr/bin/python
"""Ansible module: tell people about a run by Slack, webhook and e-mail, within a bounded time, without ever failing."""

from __future__ import annotations

DOCUMENTATION = r"""
module: notification
short_description: Send one message to Slack, a webhook and a mail server, and never wait for them
description:
  - Sends to all given channels at once, once, and returns when they have answered or when O(within_s) is over.
  - A channel that does not take the message is a warning and an entry in RV(undelivered), never a failed task.
  - What looks like a secret, and every value of O(secrets), is taken out of the message before it is sent.
options:
  event:
    description: What has happened.
    type: str
    choices: [start, success, unchanged, stop, rollback, alert]
    required: true
  title:
    description: The message in one line.
    type: str
    required: true
  facts:
    description: What else to say, each with C(name) and C(value), in the order to be read.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What it is.
        type: str
        required: true
      value:
        description: What it says.
        type: str
        required: true
  error:
    description: An error's whole text. What was seen, expected and is to be done next are shown apart.
    type: str
    default: ""
  words:
    description: The reader's words for C(seen), C(expected) and C(next_step).
    type: dict
    default: {}
  data:
    description: What the webhook's JSON has beside event, title, text and findings.
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
  within_s:
    description: Seconds after which the task goes on, whoever has not answered.
    type: float
    default: 2
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
    title: "Deployment has begun: production"
    facts: [{name: Commit, value: 4f743598c145}]
    slack_url: "{{ vault_slack_webhook_url }}"
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
seconds:
  description: How long the task has waited.
  returned: always
  type: float
  sample: 0.214
text:
  description: The message as plain text.
  returned: always
  type: str
  sample: "Deployment has begun: production\n\nCommit: 4f743598c145"
"""

from dataclasses import asdict
from typing import Any

from ansible.module_utils.at_most_one.notify import letters, messages
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
OPTIONS = {
    "event": {
        "type": "str",
        "choices": ["start", "success", "unchanged", "stop", "rollback", "alert"],
        "required": True,
    },
    "title": {"type": "str", "required": True},
    "facts": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "value": {"type": "str", "required": True},
        },
    },
    "error": {"type": "str", "default": ""},
    "words": {"type": "dict", "default": {}},
    "data": {"type": "dict", "default": {}},
    "slack_url": {"type": "str", "default": "", "no_log": True},
    "webhook_url": {"type": "str", "default": "", "no_log": True},
    "webhook_token": {"type": "str", "default": "", "no_log": True},
    "email": {"type": "dict", "default": {}, "options": EMAIL, "apply_defaults": True},
    "secrets": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "within_s": {"type": "float", "default": 2.0},
}


def act(call: Call) -> dict[str, Any]:
    given = call.params
    secrets = [secret for secret in given["secrets"] if secret]
    addresses = [given["slack_url"], given["webhook_url"], given["webhook_token"], given["email"]["password"]]
    notice = messages.clean(
        messages.Notice(
            given["event"],
            given["title"],
            tuple((fact["name"], fact["value"]) for fact in given["facts"]),
            given["error"],
            given["words"],
            given["data"],
        ),
        [*secrets, *filter(None, addresses)],
    )
    channels = [
        messages.Channel("slack", given["slack_url"]),
        messages.Channel("webhook", given["webhook_url"], given["webhook_token"]),
    ]
    mail = given["email"]
    server = letters.MailServer(*(mail[name] for name in ("host", "port", "secure", "user", "password")))
    wanted: list[messages.Channel | messages.Mail] = [channel for channel in channels if channel.url]
    if mail["to"]:
        wanted.append(messages.Mail(server, mail["sender"], tuple(mail["to"])))
    outcomes = [] if call.check_mode else messages.send(notice, wanted, within_s=given["within_s"])
    undelivered = [asdict(outcome) for outcome in outcomes if outcome.problem]
    for outcome in undelivered:
        call.warn(f"Notification by {outcome['channel']} was not delivered: {outcome['problem']}.")
    return {
        "changed": False,
        "sent": [outcome.channel for outcome in outcomes if not outcome.problem],
        "undelivered": undelivered,
        "seconds": max((outcome.seconds for outcome in outcomes), default=0.0),
        "text": messages.as_text(notice),
    }


def main() -> None:
    """Entry point."""
    run(OPTIONS, act, needs_psycopg2=False)


if __name__ == "__main__":
    main()
