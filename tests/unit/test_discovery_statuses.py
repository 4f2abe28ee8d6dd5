"""Which columns say a row's state, and the conditions that their values suggest."""

from __future__ import annotations

import pytest
from at_most_one.discovery import statuses
from at_most_one.discovery.candidates import Key, _score
from at_most_one.discovery.statuses import Condition


@pytest.mark.parametrize(
    ("name", "others", "says"),
    [
        ("status", [], True),
        ("overall_status", [], True),
        ("orderState", [], True),
        ("state", ["city", "zip"], False),  # of an address
        ("state", ["started_at"], True),
        ("email", [], False),
        ("status_message", [], False),
        ("full_name", [], False),
    ],
)
def test_a_status_is_told_by_the_last_word_of_its_name(name: str, others: list[str], says: bool) -> None:
    assert statuses.says_status(name, "text", [name, *others]) is says
    assert not statuses.says_status(name, "jsonb", [name, *others])


@pytest.mark.parametrize(
    ("values", "are"),
    [
        (["active", "in progress", "진행중"], True),
        ([], False),
        ([f"state {letter}" for letter in "abcdefghijklmnopqrstu"], False),
        (["active", "kim@example.test"], False),
        (["active", "010-1234-5678"], False),
        (["active", "Seoul 04524"], False),
        (["active", "x" * 41], False),
    ],
)
def test_values_that_look_like_something_else_are_no_status(values: list[str], are: bool) -> None:
    assert statuses.are_statuses(values) is are


@pytest.mark.parametrize(
    ("values", "conditions"),
    [
        (["active", "paused", "completed", "cancelled"], ["s IN ('active', 'paused')", "s NOT IN ('cancelled')"]),
        (["pass", "cancelled", "superseded"], ["s NOT IN ('superseded', 'cancelled')"]),
        (["InProgress", "Done"], ["s IN ('InProgress')"]),
        (["open"], []),
        (["master", "inspector"], []),
        (["active", "o'clock"], ["s IN ('active')"]),
    ],
)
def test_conditions_name_what_is_open_and_what_does_not_count_any_more(
    values: list[str], conditions: list[str]
) -> None:
    found = statuses.of_values("s", "s", values, fixed=True)
    assert [one.sql for one in found] == conditions


def test_a_surplus_row_gets_a_value_that_takes_it_out() -> None:
    opened, valid = statuses.of_values("s", "s", ["open", "done", "cancelled", "superseded"], fixed=True)
    assert opened.leaving == valid.leaving == {"s": "superseded"}
    (without,) = statuses.of_values("s", "s", ["open", "done"], fixed=True)
    assert without.leaving == {}
    assert statuses.of_flag("isDefault", '"isDefault"')[0].leaving == {"isDefault": "false"}
    assert statuses.of_flag("has_children", "has_children") == []
    assert statuses.of_moment("deletedAt", '"deletedAt"')[0].sql == '"deletedAt" IS NULL'
    assert statuses.of_moment("started_at", "started_at") == []


def test_the_values_of_a_check_constraint_are_those_it_lists() -> None:
    listed = "(status = ANY (ARRAY['open'::text, 'it''s done'::text]))"
    varchar = "((status)::text = ANY ((ARRAY['open'::character varying, 'shut'::character varying])::text[]))"
    assert statuses.checked_values(listed) == ["open", "it's done"]
    assert statuses.checked_values(varchar) == ["open", "shut"]
    assert statuses.checked_values("(email ~~ '%@%'::text)") == []


def test_what_is_valid_needs_a_day_in_its_key_and_a_rule_that_nearly_holds_comes_first() -> None:
    valid = Condition("s", "valid", "s NOT IN ('x')", 1.0, {})
    opened = Condition("s", "open", "s IN ('y')", 1.0, {})
    by_day, by_thing = Key(("a", "day"), 1.0, dated=True), Key(("a",), 1.0)
    assert _score(by_day, valid, 0.8) > _score(by_thing, valid, 0.8)
    assert _score(by_thing, opened, 0.8) > _score(by_day, opened, 0.8)
    assert _score(by_thing, opened, 0.9) > _score(by_thing, opened, 0.1)
