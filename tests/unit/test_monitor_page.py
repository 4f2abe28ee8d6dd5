"""What the dashboard shows of what was read, and what the monitor keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from at_most_one.errors import OperatorError
from at_most_one.findings import Finding
from at_most_one.monitoring import findings, memory, page

FACTS: dict[str, Any] = {
    **{"environment": "staging", "plan": "rule", "service": {"checks": [{"name": "monitoring", "ok": False}]}},
    "hosts": {
        "web2": {"commit": "", "pm2": {"msg": "gone"}},
        "web1": {"commit": "b" * 40, "pm2": {"instances": [{"status": "online"}, {"status": "errored"}]}},
    },
    "database": {
        "verified": {"duplicates_left": 2, "summary": "2 of 3"},
        "fence": {"state": "raised"},
        "history": {"msg": "gone"},
        "use": {"indexes": [{"name": "i", "scans": 1, "bytes": 2}]},
    },
}
RUN: dict[str, Any] = {"started_at": "2025-11-10T05:30:00.000Z", "who": "minsu", "commit_before": "a" * 40}


@pytest.mark.parametrize(
    ("run", "word", "colour"),
    [
        ({"outcome": "deployed"}, "deployed", "good"),
        ({"outcome": "unchanged", "phases": [{"name": "purge"}]}, "purge", "good"),
        ({"outcome": "rolled_back"}, "rolled_back", "bad"),
        ({"outcome": "abandoned"}, "abandoned", "soft"),
        ({"outcome": None}, "open", "soft"),
        ({"outcome": None, "dead_since": "2025-11-10T06:00:00Z"}, "dead", "bad"),
    ],
)
def test_a_run_has_a_word_and_a_colour(run: dict[str, Any], word: str, colour: str) -> None:
    facts = {**FACTS, "database": {"journal": {"runs": [{**RUN, **run}] * 40}}}
    shown = page.page(facts, [{"at": "now"}])["runs"]
    assert len(shown) == 30
    assert (shown[0]["word"], shown[0]["colour"]) == (word, colour)
    assert (shown[0]["started_at"], shown[0]["commit_before"], shown[0]["commit_after"]) == (
        "2025-11-10 05:30",
        "a" * 12,
        "-",
    )


def test_what_could_not_be_read_is_none() -> None:
    shown = page.page(FACTS, [{"at": "now"}])
    assert (shown["at"], shown["api_ok"], shown["fence"], shown["history"]) == ("now", False, "raised", None)
    assert shown["hosts"] == [
        {"name": "web1", "online": 1, "commit": "b" * 12},
        {"name": "web2", "online": None, "commit": None},
    ]
    blind = page.page({**FACTS, "database": {"msg": "gone"}, "service": {"msg": "gone"}}, [{"at": "now"}])
    assert (blind["api_ok"], blind["fence"], blind["summary"], blind["runs"]) == (None, None, None, [])
    document = page.document({**FACTS, "database": {"msg": "gone"}}, [], {}, "en")
    assert (document["duplicates"], document["archive"], document["indexes"]) == (None, None, [])


def test_a_module_that_has_failed_is_said_with_its_reason() -> None:
    gone = {"msg": "psycopg2 is not installed."}
    facts = {**FACTS, "min_instances": 1, "service": {"checks": []}, "database": gone, "hosts": {"web1": gone}}
    database, pm2 = findings.findings(facts)
    assert (database.name, pm2.name) == ("database", "pm2:web1")
    assert database.seen == "Could not read verified, fence, history, use, journal: psycopg2 is not installed."
    assert "psycopg2 is not installed." in pm2.seen


def test_people_are_told_once_of_what_is_new_and_once_of_what_is_over() -> None:
    found = Finding("fence", "It stands.", "none.", "drop it.")
    over = {"name": "history", "since": "today"}
    assert findings.alerts(findings.Change([found], [over], {})) == [
        {"kind": "monitor_new", "error": "It stands. Expected: none. Next: drop it."},
        {"kind": "monitor_over", "recovered": [over]},
    ]
    assert findings.alerts(findings.Change([], [], {"fence": "yesterday"})) == []


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    state, history = tmp_path / "state.json", tmp_path / "history.jsonl"
    assert memory.known(state) == {}
    assert memory.history(history) == []
    entry = memory.entry(FACTS, findings.Change([], [], {"b": "1", "a": "2"}), "now")
    assert entry == {
        **{"at": "now", "duplicates": 2, "findings": ["a", "b"]},
        "indexes": {"i": {"scans": 1, "bytes": 2}},
    }
    history.write_text(memory.as_lines([entry]) + '[1]\n{"cut')
    assert memory.history(history) == [entry]
    state.write_text('{"fence": "yesterday"}')
    assert memory.known(state) == {"fence": "yesterday"}
    for text in ("no JSON", "[]"):
        state.write_text(text)
        with pytest.raises(OperatorError, match="every finding counts as new"):
            memory.known(state)
