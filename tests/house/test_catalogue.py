"""Every message can be read in every language that has a catalogue. `make lint` compares .po and .mo by Babel, too."""

from __future__ import annotations

import gettext
import re
from pathlib import Path
from string import Formatter
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible.playbook.role import Role
from at_most_one import catalogue

from scripts import shown_names, troubleshooting
from tests.house.test_languages import SENTENCE

ROOT = Path(__file__).parents[2]
LANGUAGES = sorted(path.name for path in catalogue.LOCALE.iterdir())
COMMAND = re.compile(r"ansible-playbook [\w-]+\.yml -l <environment>(?: without \w+)?")
CONTEXT = "\4"  # between a context and its text, in what gettext reads


def _compiled(language: str) -> dict[str, str]:
    """What gettext reads, without its header."""
    with open(catalogue.LOCALE / language / f"LC_MESSAGES/{catalogue.DOMAIN}.mo", "rb") as file:
        found: dict[str, str] = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]  # no other way
    return {english: text for english, text in found.items() if english}


def _translated(language: str) -> dict[str, str]:
    """The messages."""
    return {english: text for english, text in _compiled(language).items() if CONTEXT not in english}


def _names(language: str) -> dict[tuple[str, str], str]:
    """The names on the screen, each behind its context."""
    split = ((english.partition(CONTEXT), text) for english, text in _compiled(language).items())
    return {(context, name): text for (context, mark, name), text in split if mark}


def _values(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def test_there_is_korean() -> None:
    assert "ko" in LANGUAGES


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_message_is_translated_and_nothing_else_is(language: str) -> None:
    translated, said = _translated(language), troubleshooting.phrases()
    assert sorted(said.keys() - translated.keys()) == []
    assert sorted(translated.keys() - said.keys()) == []
    assert len(said) > 1000


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_has_the_values_and_the_commands_of_its_english(language: str) -> None:
    translated = _translated(language)
    assert [text for english, text in translated.items() if _values(english) != _values(text)] == []
    assert [
        text
        for english, text in translated.items()
        if sorted(COMMAND.findall(english)) != sorted(COMMAND.findall(text))
    ] == []


def test_korean_is_korean() -> None:
    """Names and commands alone need none."""
    hangul = re.compile("[가-힣]")
    foreign = [english for english, text in _translated("ko").items() if not hangul.search(text)]
    assert [
        english
        for english in foreign
        if len(re.findall("[a-z]{3,}", re.sub(r"{\w+}|ansible-playbook.*", "", english))) > 2
    ] == []


def test_a_role_gives_each_value_that_its_message_names() -> None:
    found = [told for _, told in troubleshooting.of_roles(ROOT)]
    assert len(found) >= 11
    for told in found:
        named = _values(told["seen"]) | _values(told["expected"]) | _values(told["next_step"])
        assert named <= set(told.get("values", {})), told["identifier"]


def test_an_identifier_stands_once_and_in_its_block() -> None:
    assert list(troubleshooting.misnumbered(troubleshooting.messages())) == []


def test_what_is_wrong_with_an_identifier_is_found() -> None:
    def message(where: str, identifier: str, seen: str = "seen.") -> troubleshooting.Message:
        return troubleshooting.Message(where, seen, "expected.", "next.", identifier)

    twice = [message("postgres/catalog", "AMO-3101"), message("postgres/locks", "AMO-3101", "another.")]
    assert [said.partition(".")[0] for said in troubleshooting.misnumbered(twice)] == ["AMO-3101 names two messages"]
    assert "is not of AMO-31" in "".join(troubleshooting.misnumbered([message("postgres/catalog", "AMO-3201")]))
    assert "is not of AMO-10" in "".join(troubleshooting.misnumbered([message("run_stop", "AMO-1")]))


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_name_on_the_screen_is_translated_and_no_other_is(language: str) -> None:
    translated, shown = _names(language), shown_names.names()
    assert sorted(shown.keys() - translated.keys()) == []
    assert sorted(translated.keys() - shown.keys()) == []
    for context, least in (("play", 10), ("task", 120)):
        assert sum(name[0] == context for name in shown) >= least


def test_a_korean_name_is_korean() -> None:
    hangul = re.compile("[가-힣]")
    found = {name: text for name, text in _names("ko").items() if not hangul.search(text) or SENTENCE.search(text)}
    assert found == {}


PLAYS = """
- name: (1/7) Prepare
  hosts: all
  pre_tasks:
    - name: Say so
      ansible.builtin.include_role: {name: run}
  tasks:
    - name: A block
      block:
        - name: A role that stands there instead
          ansible.builtin.import_role: {name: prepare}
        - name: Ask
          ping:
      rescue:
        - name: Stop
          ansible.builtin.fail:
      always:
        - import_tasks: a.yml
        - ping:
- name: Forward
  ansible.builtin.import_playbook: deploy.yml
"""


def test_a_name_is_what_is_shown_of_a_play_and_its_tasks() -> None:
    assert list(shown_names.of(yaml.safe_load(PLAYS))) == [
        *(("play", "Prepare"), ("task", "Say so"), ("task", "Ask"), ("task", "Stop"))
    ]


def test_the_check_of_a_role_s_arguments_is_called_as_ansible_calls_it() -> None:
    create: Any = Role._create_validation_task
    role = SimpleNamespace(_role_params={}, _role_name="", _role_path="")
    shown, entry_points = shown_names.names(), 0
    for path in sorted(ROOT.glob("roles/*/meta/argument_specs.yml")):
        specifications = yaml.safe_load(path.read_text(encoding="utf-8"))
        for entry_point, specification in specifications["argument_specs"].items():
            name = create(role, specification, entry_point)["name"]
            assert path.relative_to(ROOT).as_posix() in shown["task", name]
            entry_points += 1
    assert entry_points >= 20
    assert list(shown_names.of_specifications({"argument_specs": {"bare": {}}})) == [
        ("task", create(role, {}, "bare")["name"])
    ]
