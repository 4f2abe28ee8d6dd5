"""The checklist: each gate passes by what can be shown, and says otherwise what was seen."""

from __future__ import annotations

import http.server
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from at_most_one.errors import OperatorError
from at_most_one.preflight import checklist
from at_most_one.preflight.checklist import Backup, Notice
from at_most_one.rehearsal import evidence

from tests.unit.test_evidence import NOW, OF_A, SHOP_B, WANTED, rehearsed, with_tenant

FRESH = "2025-11-10T03:00:00Z"


def printing(text: str, code: int = 0) -> list[str]:
    return [sys.executable, "-c", f"import sys; sys.stdout.write({text!r}); sys.exit({code})"]


@pytest.fixture
def provider() -> Iterator[Any]:
    """A provider's answer; the test sets status and body."""

    class Handler(http.server.BaseHTTPRequestHandler):
        answer = (200, FRESH)

        def do_GET(self) -> None:
            status, body = self.answer
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            """Nothing to say."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        Handler.url = f"http://127.0.0.1:{server.server_port}/backups"  # type: ignore[attr-defined]
        yield Handler
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("given", "source"),
    [
        (Backup(FRESH, [], "", 24), "prepare_backup_taken_at"),
        (Backup("2025-11-10T12:00:00+09:00", [], "", 24), "prepare_backup_taken_at"),
        (Backup("", printing(f"backup finished {FRESH}\n"), "", 24), "prepare_backup_command"),
        (Backup("", ["printf", f"\\377\\376 {FRESH}"], "", 24), "prepare_backup_command"),  # no UTF-8
        (Backup(FRESH, printing("never asked", 3), "", 24), "prepare_backup_taken_at"),
    ],
)
def test_a_fresh_backup_passes(given: Backup, source: str) -> None:
    answer = checklist.backup(given, NOW)
    assert answer.passed
    assert answer.facts == {"taken_at": FRESH, "age_hours": 9.0, "source": source}


def test_a_url_may_say_it(provider: Any) -> None:
    provider.answer = (200, f'{{"last_backup": "{FRESH}"}}')
    assert checklist.backup(Backup("", [], provider.url, 24), NOW).facts["source"] == "prepare_backup_url"
    provider.answer = (503, "later")
    with pytest.raises(OperatorError, match="answered 503"):
        checklist.backup(Backup("", [], provider.url, 24), NOW)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Backup("", [], "", 24), "nobody said when"),
        (Backup("yesterday", [], "", 24), "says no time: yesterday"),
        (Backup("2025-11-10T03:00:00", [], "", 24), "says no time"),
        (Backup("2025-11-45T03:00:00Z", [], "", 24), "is no time"),
        (Backup("2025-11-09T11:00:00Z", [], "", 24), "25.0 hours ago"),
        (Backup("2025-11-11T03:00:00Z", [], "", 24), "in the future"),
        (Backup("", printing(""), "", 24), "nothing at all"),
        (Backup("", printing(f"{FRESH} 2025-11-09T03:00:00Z"), "", 24), "says 2 times"),
        (Backup("", printing("password=hunter2 refused", 4), "", 24), "exit code 4 and said: password=***"),
        (Backup("", ["/no/such/program"], "", 24), "cannot be run"),
        (Backup("", [], "http://127.0.0.1:1/", 24), "does not answer"),
    ],
)
def test_an_unknown_or_old_backup_does_not(given: Backup, message: str) -> None:
    with pytest.raises(OperatorError) as refused:
        checklist.backup(given, NOW)
    assert message in refused.value.seen
    assert "hunter2" not in str(refused.value)
    assert refused.value.next_step


def test_a_rehearsal_passes_with_its_times_and_a_reason_with_what_was_missing(tmp_path: Path) -> None:
    path = str(tmp_path / "evidence.json")
    with pytest.raises(OperatorError, match="does not exist"):
        checklist.rehearsal(path, "  ", WANTED, NOW)

    by_reason = checklist.rehearsal(path, "staging is down", WANTED, NOW)
    assert by_reason.passed
    assert by_reason.facts["reason"] == "staging is down"
    assert "does not exist" in by_reason.facts["instead_of"]

    written = evidence.write(path, rehearsed())
    answer = checklist.rehearsal(path, "not needed", WANTED, NOW)
    assert answer.facts["evidence"]["sha256"] == written["sha256"], "evidence comes before a reason"
    assert "reason" not in answer.facts


def test_a_rehearsal_with_another_tenant_passes_and_is_named(tmp_path: Path) -> None:
    written = evidence.write(str(tmp_path / "good@eu.shop_b.json"), with_tenant(SHOP_B))
    answer = checklist.rehearsal(str(tmp_path / "good@shop_a.json"), "", OF_A, NOW)
    assert answer.passed
    assert answer.seen == (
        f"rehearsed in staging as good@eu.shop_b, ended 2025-11-09T12:00:00Z ({written['sha256'][:12]})."
    )
    assert answer.facts["evidence"]["plan"] == "good@eu.shop_b"


@pytest.mark.parametrize(
    ("given", "takes"),
    [
        (Notice(True, "2025-11-10T11:30:00Z", "", 60), None),
        (Notice(True, "2025-11-10T20:30:00+09:00", "2025-11-10T21:30:00+09:00", 1), 1_700.0),
        (Notice(True, "2025-11-10T12:00:00Z", "2025-11-10T12:00:00Z", 60), 0.0),
    ],
)
def test_a_notice_passes_within_its_window(given: Notice, takes: float | None) -> None:
    assert checklist.notice(given, NOW, takes).passed


@pytest.mark.parametrize(
    ("given", "takes", "message"),
    [
        (Notice(False, "2025-11-10T11:30:00Z", "", 60), None, "Nobody has confirmed"),
        (Notice(True, "", "", 60), None, "not for which time"),
        (Notice(True, "2025-11-10T12:01:00Z", "", 60), None, "It is 2025-11-10T12:00:00Z"),
        (Notice(True, "2025-11-10T10:30:00Z", "", 60), None, "told of 2025-11-10T10:30:00Z to 2025-11-10T11:30:00Z"),
        (Notice(True, "2025-11-10T11:30:00Z", "", 60), 1_801.0, "30 minutes are left"),
        (Notice(True, "soon", "", 60), None, "prepare_notice_from is soon"),
        (Notice(True, "2025-11-10T11:30:00Z", "12:30", 60), None, "prepare_notice_until is 12:30"),
    ],
)
def test_outside_of_it_nothing_starts(given: Notice, takes: float | None, message: str) -> None:
    with pytest.raises(OperatorError) as refused:
        checklist.notice(given, NOW, takes)
    assert message in refused.value.seen
    assert "Next:" in str(refused.value)


def test_an_open_gate_is_an_answer() -> None:
    answer = checklist.answered(lambda: checklist.notice(Notice(False, "", "", 60), NOW, None))
    assert (answer.passed, answer.seen[:6]) == (False, "Nobody")
