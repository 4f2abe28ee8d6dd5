"""A message is English text everywhere, travels with what it is made of, and is read in the reader's language."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ansible.module_utils
import pytest
from at_most_one import catalogue
from at_most_one.errors import OperatorError
from at_most_one.findings import Finding, Phrase, filled, joined, observed, say
from at_most_one.http.client import NoAnswer
from at_most_one_entry import refusal

from tests.support.languages import a_language

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A language of a few words: xx."""
    monkeypatch.setattr(ansible.module_utils, "__path__", [*ansible.module_utils.__path__, str(ROOT / "module_utils")])
    words = {
        "There is no table {table}.": "TABLE {table} NOT",
        "{first}, then {second}": "{second} AFTER {first}",
        "one": "ONE",
        "Wait for {who}.": "AWAIT {who}",
    }
    monkeypatch.setattr(catalogue, "LOCALE", a_language(tmp_path, "xx", words))
    catalogue._translations.cache_clear()
    yield
    catalogue._translations.cache_clear()


def test_a_phrase_is_its_english() -> None:
    phrase = observed("AMO-2031", "There is no table {table}.", table="orders")
    assert phrase == "There is no table orders."
    assert (phrase.identifier, phrase.template) == ("AMO-2031", "There is no table {table}.")
    assert json.dumps(phrase) == '"There is no table orders."'


def test_it_is_read_in_another_language_with_the_phrases_inside_of_it() -> None:
    inside = say("{first}, then {second}", first=say("one"), second=2)
    assert catalogue.render(inside, "xx") == "2 AFTER ONE"
    assert catalogue.render(joined([say("one"), "two", inside]), "xx") == "ONE; two; 2 AFTER ONE"
    assert joined([say("one"), "two"]) == "one; two"


def test_what_nobody_has_translated_is_english() -> None:
    assert catalogue.render(say("Nobody knows {it}.", it=say("one")), "xx") == "Nobody knows ONE."
    assert catalogue.render(say("one"), "yy") == "one"
    assert catalogue.render("a foreign text with {braces}", "xx") == "a foreign text with {braces}"


def test_a_failed_task_hands_over_what_the_control_node_translates() -> None:
    stop = OperatorError(
        observed("AMO-2031", "There is no table {table}.", table="orders"),
        expected=say("one"),
        next_step=say("Wait for {who}.", who=say("one")),
    )
    (handed,) = json.loads(json.dumps(refusal(stop)))["findings"]  # type: ignore[arg-type]  # known by two names
    shown = catalogue.shown(Finding.of_data(handed), "xx")
    assert shown == {
        "name": "",
        "identifier": "AMO-2031",
        "seen": "TABLE orders NOT",
        "expected": "ONE",
        "next_step": "AWAIT ONE",
        "english": {"seen": "There is no table orders.", "expected": "one", "next_step": "Wait for one."},
    }
    assert catalogue.told(Finding.of_data(handed), "xx").seen == "TABLE orders NOT [AMO-2031]"


def test_a_secret_is_masked_in_the_values_as_it_is_in_the_text() -> None:
    """A value alone may not look like one."""
    stop = OperatorError(
        observed("AMO-2031", "There is no table {table}.", table="postgres://me:s3cret@db/x"),
        expected=say("password={word} in the file", word="s3cret"),
        next_step=say("one"),
    )
    result = refusal(stop)  # type: ignore[arg-type]  # known by two names
    assert "s3cret" not in json.dumps(result)
    (handed,) = result["findings"]
    assert sorted(handed["phrases"]) == ["next_step", "seen"]
    assert "s3cret" not in catalogue.shown(Finding.of_data(handed), "xx")["seen"]


def test_what_was_masked_on_the_way_is_english() -> None:
    """Ansible masks what an option with no_log was given, in each text for itself."""
    handed = Finding("", say("one"), say("Wait for {who}.", who="alice"), "").as_data()
    handed["expected"] = "Wait for ********."
    found = Finding.of_data(handed)
    assert catalogue.render(found.seen, "xx") == "ONE"
    assert catalogue.render(found.expected, "xx") == "Wait for ********."
    handed["phrases"]["seen"]["template"] = "{who} is gone"
    assert Finding.of_data(handed).seen == "one"


def test_a_phrase_gets_other_values() -> None:
    phrase = observed("AMO-1", "Wait for {who}.", who="{who}")
    assert filled(phrase, who="Ann", what="x") == "Wait for Ann."
    assert isinstance(filled(phrase), Phrase)
    assert filled(phrase, who="Ann").identifier == "AMO-1"
    assert joined([phrase, "x"], " ").identifier == joined(["[gate]", phrase]).identifier == "AMO-1"
    assert joined(["x"]).identifier == ""


STOP = {
    "that": False,
    "identifier": "",
    "seen": "",
    "expected": "",
    "next_step": "",
    "values": {},
    "findings": [],
    "error": "",
    "afterwards": [],
}


def stopped(**given: Any) -> dict[str, Any]:
    """What the module stop_unless answers."""
    spec = importlib.util.spec_from_file_location("stop_unless", ROOT / "library/stop_unless.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    answer: dict[str, Any] = module.act(SimpleNamespace(params={**STOP, **given}, check_mode=False))
    return answer


def test_a_role_stops_with_a_message_that_can_be_translated() -> None:
    message = {"seen": "There is no table {table}.", "expected": "one", "next_step": "Wait for {who}."}
    values = {"table": "orders", "who": "Ann"}
    assert stopped(that=True, **message, values=values) == {"changed": False}
    result = stopped(identifier="AMO-6001", **message, values=values)
    assert (result["failed"], result["msg"]) == (True, "There is no table orders. Expected: one Next: Wait for Ann.")
    shown = catalogue.shown(Finding.of_data(result["findings"][0]), "xx")
    assert (shown["identifier"], shown["seen"], shown["next_step"]) == ("AMO-6001", "TABLE orders NOT", "AWAIT Ann")


def test_a_role_hands_on_what_a_module_has_found() -> None:
    found = [Finding(name, say("one"), say("one"), say("Wait for {who}.", who=name)).as_data() for name in "ab"]
    result = stopped(findings=found, error="2 of 2 are open.")
    assert result["msg"] == "2 of 2 are open."
    assert "afterwards" not in result
    assert [catalogue.shown(Finding.of_data(one), "xx")["next_step"] for one in result["findings"]] == [
        "AWAIT a",
        "AWAIT b",
    ]


def test_a_role_repeats_an_error_with_what_came_after_it() -> None:
    behind = [say("Wait for {who}.", who="Ann").as_data()]
    assert stopped(error="No.\nWait for Ann.", afterwards=behind) == {
        **{"failed": True, "msg": "No.\nWait for Ann.", "afterwards": behind}
    }


def test_an_answer_is_read_in_the_reader_s_language_where_it_has_phrases() -> None:
    said = say("Wait for {who}.", who="Ann")
    answer = {"name": "root", "got": str(said), "request": "GET /", "phrases": {"got": said.as_data()}}
    assert catalogue.in_words(answer, "xx") == {"name": "root", "got": "AWAIT Ann", "request": "GET /"}
    assert catalogue.in_words({**answer, "got": "***"}, "xx")["got"] == "***", "masked since"
    assert catalogue.in_words({"name": "root"}, "xx") == {"name": "root"}
    assert catalogue.in_words({"name": "root", "phrases": answer["phrases"]}, "xx") == {"name": "root"}


def test_a_phrase_is_copied_with_its_dataclass_whatever_it_names() -> None:
    finding = Finding("a", say("Wait for {who}.", who=NoAnswer("cut", "why")), "", "")
    assert asdict(finding)["seen"] is finding.seen
