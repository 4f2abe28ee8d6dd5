"""What people read comes out of the catalogue, or is written once in each language: no English beside it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import troubleshooting

ROOT = Path(__file__).parents[2]
# Three words in a row: no name, path or command has them.
SENTENCE = re.compile(r"[A-Za-z][a-z']+(?: (?:[a-z']{2,}|a)){2,}")
JINJA = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
LITERAL = re.compile(r"'([^']*)'|\"([^\"]*)\"")
# Keys of a task whose value is an expression, and those that nobody reads while it runs.
EXPRESSIONS = {"when", "that", "changed_when", "failed_when", "until"}
UNREAD = {"name", "label"}
# Calls whose text is shown to people.
SHOWN = {"warn", "warning", "error", "fail_json", "AnsibleActionFail", "AnsibleError", "AnsibleParserError", "display"}
# Files that are written for a machine or into an inventory: what is English in them is a comment of that file.
WRITTEN = ("roles/monitor_schedule/templates/", "roles/new_service/templates/", "roles/report/templates/page/")


def _texts(text: str, *, code: bool = False) -> Iterator[str]:
    """The text without Jinja, and what stands in quotes inside of Jinja."""
    blocks = [text] if code else [block for block in JINJA.findall(text) if not block.startswith("{#")]
    yield from ("" if code else JINJA.sub("…", text), *(a or b for block in blocks for a, b in LITERAL.findall(block)))


def _sentences(text: str, *, code: bool = False) -> list[str]:
    return [found[0] for one in _texts(text, code=code) for found in SENTENCE.finditer(one)]


def of_tasks(value: Any, key: str = "") -> Iterator[str]:
    """English sentences of tasks that are not phrases: stop_unless and ``template`` hand those to the catalogue."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in UNREAD or (name == "template" and set(value) == {"template", "values"}):
                continue
            if name == "stop_unless":
                inner = {key: text for key, text in inner.items() if key not in ("seen", "expected", "next_step")}
            yield from of_tasks(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from of_tasks(inner, key)
    elif isinstance(value, str):
        yield from _sentences(value, code=key in EXPRESSIONS)


def of_python(source: str) -> Iterator[str]:
    """Texts that are shown, parts of a message, and what a function returns in the place of a phrase, that are none."""
    for node in ast.walk(ast.parse(source)):
        for argument in _shown(node):
            for text in _parts(argument):
                yield from _sentences(text)


def _shown(node: ast.AST) -> list[ast.expr]:
    """What of a call, or of what a function returns, is shown to people."""
    if isinstance(node, ast.FunctionDef):
        returned = [one.value for one in ast.walk(node) if isinstance(one, ast.Return) and one.value]
        return returned if any(_name(one) == "say" for one in returned) else []
    if not isinstance(node, ast.Call):
        return []
    name = _name(node)
    if name in SHOWN:
        return [*node.args, *(keyword.value for keyword in node.keywords)]
    if name in troubleshooting.ERRORS:
        return [*node.args[:1], *(one.value for one in node.keywords if one.arg in ("expected", "next_step"))]
    return list(node.args[1:4]) if name == "Finding" else []


def _name(node: ast.AST) -> str:
    """Of what is called."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _parts(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)
        case ast.IfExp(body=body, orelse=orelse):
            yield from (*_parts(body), *_parts(orelse))
        case ast.BinOp(left=left, right=right):
            yield from (*_parts(left), *_parts(right))


def _found(patterns: tuple[str, ...], read: Any) -> dict[str, list[str]]:
    paths = sorted(path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file())
    assert paths
    places = {path.relative_to(ROOT).as_posix(): list(read(path.read_text(encoding="utf-8"))) for path in paths}
    return {place: said for place, said in places.items() if said}


def test_tasks_say_nothing_beside_the_catalogue() -> None:
    patterns = ("roles/*/tasks/**/*.yml", "roles/*/handlers/*.yml", "roles/*/vars/*.yml", "playbooks/**/*.yml")
    assert _found(patterns, lambda text: of_tasks(yaml.safe_load(text))) == {}


def test_modules_and_plugins_say_nothing_beside_the_catalogue() -> None:
    assert _found(("module_utils/**/*.py", "library/*.py", "*_plugins/*.py"), of_python) == {}


def test_templates_are_of_one_language() -> None:
    """One that both languages share has words of neither; a Korean one has no English but a name in quotes."""
    shared = _found(("roles/*/templates/**/*",), _sentences)
    assert [
        place for place in shared if ".en." not in place and ".ko." not in place and not place.startswith(WRITTEN)
    ] == []
    korean = _found(("roles/*/templates/**/*.ko.*", "roles/*/files/words_ko.yml"), lambda text: _sentences(_bare(text)))
    assert korean == {}


def _bare(text: str) -> str:
    """Without what another program prints, as it prints it."""
    return re.sub(r'"Failed to find Server Action"', "", text)


def test_each_message_has_an_identifier() -> None:
    assert [message for message in troubleshooting.messages() if not message.identifier] == []


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"ansible.builtin.fail": {"msg": "The way back failed: {{ why }}"}}, ["The way back failed"]),
        ({"set_fact": {"_error": "{{ error ~ ' and nothing was written' }}"}}, ["and nothing was written"]),
        ({"name": "Stop without a name", "fail": {"msg": "{{ why }}"}}, []),
        ({"stop_unless": {"seen": "There is no table.", "values": {"why": "it was not made"}}}, ["it was not made"]),
        ({"vars": {"behind": {"template": "The way back failed: {error}", "values": {}}}}, []),
        ({"when": "why == 'it was not made'"}, ["it was not made"]),
        ({"command": "ansible-playbook deploy.yml -l local"}, []),
    ],
)
def test_a_sentence_of_a_task_is_found(task: dict[str, Any], said: list[str]) -> None:
    assert list(of_tasks([{"block": [task]}])) == said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('module.warn(f"{path} is not there any more.")', ["is not there any more"]),
        ('module.warn(say("{path} is not there any more.", path=path))', []),
        (
            'raise OperatorError(observed("AMO-1", "a"), expected="one of the two", next_step=say("b"))',
            ["one of the two"],
        ),
        ('Finding("x", observed("AMO-1", "a"), say("b"), "try it again" if x else y)', ["try it again"]),
        ('raise AnsibleActionFail("there is " + "no such file")', ["no such file"]),
        ('log("this is not shown")', []),
        ('def next(a):\n if a:\n  return say("run it")\n return "run it all again"', ["run it all again"]),
        ('def next(a):\n return "nobody reads this one"', []),
    ],
)
def test_a_sentence_of_the_code_is_found(line: str, said: list[str]) -> None:
    assert list(of_python(line)) == said
