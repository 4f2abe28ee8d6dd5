"""Messages as Slack, a program and a mail reader get them; and endpoints that are dead, silent or endless."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml
from at_most_one.notify import messages

from tests.support.listener import listening, misbehaving

ROOT = Path(__file__).parents[2]
STOP = messages.Notice(
    "stop",
    "배포 중단: production | aedpics",
    (("커밋", "f30ada37db1b -> 4f743598c145"), ("보고서", "artifacts/production/1/report.html")),
    "25 rows & <more> are to leave. Expected: at most 24. Next: look at the report.",
    {"seen": "확인된 내용", "expected": "기대한 내용", "next_step": "조치"},
    {"run_id": "20251110T053000Z-1a2b3c", "outcome": "stopped"},
)


def test_slack_gets_a_line_and_blocks() -> None:
    assert messages.for_slack(STOP) == {
        "text": "배포 중단: production | aedpics",
        "blocks": [
            {
                "type": "header",
                "text": {"type": "plain_text", "text": ":x: 배포 중단: production | aedpics", "emoji": True},
            },
            {
                "type": "section",
                "fields": [
                    {"type": "mrkdwn", "text": "*커밋*\nf30ada37db1b -&gt; 4f743598c145"},
                    {"type": "mrkdwn", "text": "*보고서*\nartifacts/production/1/report.html"},
                ],
            },
            {
                "type": "section",
                "text": {
                    "type": "mrkdwn",
                    "text": "*확인된 내용:* 25 rows &amp; &lt;more&gt; are to leave.\n*기대한 내용:* at most 24.\n"
                    "*조치:* look at the report.",
                },
            },
        ],
    }


def test_slack_gets_every_event() -> None:
    events = yaml.safe_load((ROOT / "roles/notify/meta/argument_specs.yml").read_text())
    names = events["argument_specs"]["main"]["options"]["notify_events"]["choices"]
    assert "hold" in names
    for name in names:
        assert messages.for_slack(messages.Notice(name, "t"))["blocks"][0]["text"]["text"].endswith(": t")


def test_a_program_gets_data_and_the_text() -> None:
    assert messages.for_webhook(STOP) == {
        "event": "stop",
        "title": "배포 중단: production | aedpics",
        "text": "배포 중단: production | aedpics\n\n커밋: f30ada37db1b -> 4f743598c145\n"
        "보고서: artifacts/production/1/report.html\n\n확인된 내용: 25 rows & <more> are to leave.\n"
        "기대한 내용: at most 24.\n조치: look at the report.",
        "run_id": "20251110T053000Z-1a2b3c",
        "outcome": "stopped",
        "findings": [
            {"seen": "25 rows & <more> are to leave.", "expected": "at most 24.", "next_step": "look at the report."}
        ],
    }


def test_a_text_beyond_slacks_limits_is_cut() -> None:
    blocks = messages.for_slack(messages.Notice("alert", "t" * 500, (("n", "v" * 5_000),) * 20, "e" * 9_000))["blocks"]

    assert len(blocks[0]["text"]["text"]) == 150
    assert [[len(field["text"]) for field in block["fields"]] for block in blocks[1:3]] == [[2_000] * 10] * 2
    assert len(blocks[3]["text"]["text"]) == 3_000


def test_more_findings_than_a_message_may_have_blocks_are_counted() -> None:
    """Slack refuses the whole message otherwise: when most is wrong, nobody would hear of it."""
    every = " Seen: ".join(f"{number} is down. Expected: not. Next: look." for number in range(60))
    blocks = messages.for_slack(messages.Notice("alert", "t", (), every))["blocks"]
    assert len(blocks) == 50
    assert "47 is down." in blocks[-2]["text"]["text"]
    assert blocks[-1]["text"]["text"] == "… +12"


def test_secrets_are_taken_out_wherever_they_are() -> None:
    dirty = messages.Notice(
        "alert", "hunter2", (("n", "postgresql://a:b@h/d"),), "hunter2", {}, {"deep": [{"er": "xx hunter2 xx"}], "n": 3}
    )

    sent = messages.for_webhook(messages.clean(dirty, ["hunter2"]))

    assert "hunter2" not in str(sent)
    assert "a:b" not in str(sent)
    assert sent["deep"] == [{"er": "xx *** xx"}]
    assert sent["n"] == 3


def test_both_channels_get_it_and_the_token_goes_to_one() -> None:
    with listening() as server:
        outcomes = messages.send(
            STOP,
            [
                messages.Channel("slack", f"{server.url}/T/B/X"),
                messages.Channel("webhook", f"{server.url}/in", "t0ken"),
            ],
            within_s=10,
        )

        assert [(outcome.channel, outcome.problem) for outcome in outcomes] == [("slack", None), ("webhook", None)]
        assert {where: body for where, _, body in server.messages} == {
            "/T/B/X": messages.for_slack(STOP),
            "/in": messages.for_webhook(STOP),
        }
        tokens = {where: headers.get("Authorization") for where, headers, _ in server.messages}
        assert tokens == {"/T/B/X": None, "/in": "Bearer t0ken"}


@pytest.mark.parametrize(
    ("kind", "problem"),
    [("dead", "no answer (refused)"), ("silent", "no answer"), ("dripping", "no answer within 0.5 s")],
)
def test_an_endpoint_that_does_not_answer_holds_nobody(kind: str, problem: str) -> None:
    with misbehaving(kind) as url, listening() as server:
        began = time.monotonic()

        bad, good = messages.send(
            STOP, [messages.Channel("slack", f"{url}/secret"), messages.Channel("webhook", server.url)], within_s=0.5
        )

        assert time.monotonic() - began < 3, "it waits half a second, not for the endpoint"
        assert (bad.problem or "").startswith(problem)
        assert "secret" not in str(bad)
        assert good.problem is None


@pytest.mark.parametrize("address", ["hooks.example/secret", "http://user:secret@h/", "http://h/ secret\n", ""])
def test_an_address_that_is_none_is_a_problem_and_not_shown(address: str) -> None:
    (outcome,) = messages.send(STOP, [messages.Channel("slack", address)], within_s=5)

    assert outcome.problem
    assert "secret" not in outcome.problem


def test_a_refusal_is_a_problem() -> None:
    with listening(status=404) as server:
        (outcome,) = messages.send(STOP, [messages.Channel("slack", server.url)], within_s=10)

    assert outcome.problem == "status 404"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_token_follows_no_redirect(status: int) -> None:
    """Neither it nor the message is for whoever the other side names."""
    with listening() as elsewhere, listening(status, f"{elsewhere.url}/in") as server:
        (outcome,) = messages.send(STOP, [messages.Channel("webhook", server.url, "t0ken")], within_s=10)

        assert outcome.problem == f"status {status}"
        assert elsewhere.messages == []


def test_a_proxy_of_the_environment_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as proxy, listening() as server:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        (outcome,) = messages.send(STOP, [messages.Channel("webhook", server.url, "t0ken")], within_s=10)

        assert outcome.problem is None
        assert (len(server.messages), len(proxy.messages)) == (1, 0)
