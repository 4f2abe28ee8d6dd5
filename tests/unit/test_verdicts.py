"""What the catalog's and a rehearsal's differences say to a person: Korean around names and SQL, which stay."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from at_most_one import catalogue
from at_most_one.duplicates.effects import Effect, in_words
from at_most_one.findings import Phrase, say
from at_most_one.indexes import verification
from at_most_one.indexes.verification import Difference, Verdict
from at_most_one.monitoring import findings
from at_most_one.rehearsal.turns import TURNS, Turn
from at_most_one.verdicts import difference, word

from filter_plugins.at_most_one import word as told

ROOT = Path(__file__).parents[2]
LINES = {
    "- index CREATE UNIQUE INDEX one ON aedpics.sessions USING btree (serial)": (
        "- 인덱스 CREATE UNIQUE INDEX one ON aedpics.sessions USING btree (serial)"
    ),
    "+ column sessions.notes text not null default 'a'::text": "+ 열 sessions.notes text not null default 'a'::text",
    "+ constraint sessions.one CHECK ((a >\n 1))": "+ 제약 조건 sessions.one CHECK ((a >\n 1))",
    "- trigger CREATE TRIGGER t BEFORE DELETE ON sessions DISABLED": (
        "- 트리거 CREATE TRIGGER t BEFORE DELETE ON sessions DISABLED"
    ),
    "- table aedpics.sessions": "- 테이블 aedpics.sessions",
    "+ migration 20251110_add_index applied": "+ 마이그레이션 20251110_add_index: 적용됨",
    "- migration 20251110_add_index failed": "- 마이그레이션 20251110_add_index: 실패(failed)",
    "content of aedpics.sessions: 69 rows then, 70 now, digest 0a1b2c3d4e5f -> 5f4e3d2c1b0a": (
        "aedpics.sessions의 내용: 이전 69행, 현재 70행, 다이제스트 0a1b2c3d4e5f -> 5f4e3d2c1b0a"
    ),
}


@pytest.mark.parametrize("line", LINES)
def test_a_difference_is_the_same_in_english_and_read_in_korean(line: str) -> None:
    found = difference(line)
    assert isinstance(found, Phrase)
    assert found == line
    assert catalogue.render(found, "ko") == LINES[line]


@pytest.mark.parametrize("turn", [turn for turn in TURNS if turn.same_as], ids=lambda turn: turn.name)
def test_a_difference_says_in_korean_after_which_turn_it_was_found(turn: Turn) -> None:
    found = difference(f"{turn.name} is not as {turn.same_as}: - table aedpics.sessions")
    assert found == f"{turn.name} is not as {turn.same_as}: - table aedpics.sessions"
    korean = catalogue.render(found, "ko")
    assert korean.endswith(": - 테이블 aedpics.sessions")
    assert re.findall("[a-z]+", korean) == ["aedpics", "sessions"]


@pytest.mark.parametrize("line", ["", "- view sessions", "something else is gone", "back is not as forward: - table t"])
def test_another_text_stays_as_it_is(line: str) -> None:
    assert catalogue.render(difference(line), "ko") == line


def test_a_verdict_names_in_korean_what_differs() -> None:
    expected: dict[str, Any] = dict.fromkeys(verification._DEFINITION, "this")
    expected |= {"kind": "index", "include": [], "unique": True, "valid": True, "ready": True, "live": True}
    seen = {**expected, "unique": False, "predicate": None, "include": ["notes"], "live": False, "definition": "CREATE"}
    seen |= {"building_pid": None, "remarks": {"predicate": say("the same parts in another order")}}
    fault = verification.judge("one_key", expected, seen).fault()
    assert fault is not None
    korean = catalogue.render(fault, "ko")
    words = set(re.findall("[A-Za-z_]+", korean))
    assert words == {"one_key", "this", "notes", "INCLUDE", "live"}, korean


def test_a_name_that_something_else_has_is_told_in_korean() -> None:
    taken = Verdict("one_key", "different", (Difference("kind", word("index"), word("something else")),))
    fault = taken.fault()
    assert fault is not None
    assert re.findall("[A-Za-z_]+", catalogue.render(fault, "ko")) == ["one_key"]


def test_the_monitor_names_in_korean_what_differs_of_an_index() -> None:
    parts = [
        {"part": "unique", "expected": "yes", "seen": "no"},
        {"part": "table", "expected": "no_more", "seen": "index"},
    ]
    index = {"name": "one_key", "verdict": "different", "parts": parts}
    (found,) = findings._rule({"duplicates_left": 0, "indexes": [index]})
    assert found.seen == "Index one_key is different (unique: no instead of yes; table: index instead of no_more)."
    korean = catalogue.render(found.seen, "ko")
    assert sorted(re.findall("[A-Za-z_]+", korean)) == ["index", "no_more", "one_key"], "a table may have any name"


def test_what_a_change_sets_off_is_named_in_korean() -> None:
    found = [
        Effect("trigger", "audit", "aedpics.sessions", "AFTER DELETE FOR EACH ROW", "aedpics.audit"),
        Effect("event trigger", "watch", "the database", "sql_drop", "public.watch"),
    ]
    assert (
        in_words(found)
        == "; ".join(map(str, found))
        == (
            "trigger audit of aedpics.sessions (AFTER DELETE FOR EACH ROW: aedpics.audit); "
            "event trigger watch of the database (sql_drop: public.watch)"
        )
    )
    korean = catalogue.render(in_words(found), "ko")
    assert korean == (
        "aedpics.sessions의 트리거 audit(AFTER DELETE FOR EACH ROW: aedpics.audit); "
        "데이터베이스의 이벤트 트리거 watch(sql_drop: public.watch)"
    )
    assert in_words([]) == ""


@pytest.mark.parametrize(
    ("verdict", "language", "shown"),
    [("pending", "ko", "미적용(pending)"), ("pending", "en", "pending"), ("of_another", "ko", "of_another")],
)
def test_a_template_names_a_verdict_in_the_reader_s_language(verdict: str, language: str, shown: str) -> None:
    assert told(verdict, language) == shown


def test_each_phase_has_a_korean_name() -> None:
    plays = [play for path in ROOT.glob("playbooks/*.yml") for play in yaml.safe_load(path.read_text(encoding="utf-8"))]
    phases = {play["vars"]["run_phase"] for play in plays if "run_phase" in play.get("vars", {})}
    assert len(phases) >= 7
    assert [phase for phase in phases if not re.search("[가-힣]", told(phase, "ko"))] == []
