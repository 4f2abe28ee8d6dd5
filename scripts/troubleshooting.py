"""Write every error message into docs/troubleshooting.md, from the code itself; --check fails if one is missing there.

The same page in Korean is made of the catalogue.

What a message names (a path, a count, a session) stands as … in it. A message without an expectation or a next step
is an error here: nobody could act on it. So is an identifier that stands twice, or outside its package's block.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "module_utils"))
from at_most_one import catalogue  # noqa: E402

PAGES = {"en": ROOT / "docs/troubleshooting.md", "ko": ROOT / "docs/troubleshooting.ko.md"}
BEGIN = "<!-- messages: generated from the code by `make docs` -->\n"
END = "<!-- end of messages -->"
ERRORS = {"OperatorError", "LockNotObtained", "PartlyBuilt"}
PHRASES = {"say", "observed"}
# The first two digits of an identifier, AMO-3104, by where the message is made: a package of the core, or another
# directory. A new message takes the next free number of its block; a number that was given up is not used again.
BLOCKS = {
    "system": "11",
    "plan": "21",
    "runs": "22",
    "preflight": "23",
    "rehearsal": "24",
    "discovery": "25",
    "postgres": "31",
    "duplicates": "32",
    "cleanup": "33",
    "fence": "34",
    "indexes": "35",
    "migration": "36",
    "prisma": "37",
    "release": "41",
    "pm2": "42",
    "http": "43",
    "service": "44",
    "systemd": "45",
    "monitoring": "51",
    "roles": "60",
}
ELSEWHERE = "10"  # modules, plugins and what they share
HEADINGS = {
    "en": ("message", "expected", "next", "modules and plugins"),
    "ko": ("메시지", "기대", "다음", "모듈과 플러그인"),
}
IDENTIFIER = re.compile(r"AMO-(\d\d)\d\d")


@dataclass(frozen=True, order=True)
class Message:
    """One message, and the module or role that has it. Its texts are templates, with braces for what they name."""

    where: str
    seen: str
    expected: str
    next_step: str
    identifier: str = ""


def of_python(path: Path) -> Iterator[Message]:
    """Every OperatorError and Finding that a file makes, and every text that says what was expected and what to do."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS and node.args:
            said = {keyword.arg: _template(keyword.value, named) for keyword in node.keywords}
            for seen, identifier in _seen(node.args[0], named):
                yield Message(place(path), seen, said.get("expected", ""), said.get("next_step", ""), identifier)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding":
            about, *rest = node.args[1:4]  # after the name of what it is about
            if len(rest) == 2:
                expected, next_step = (_template(argument, named) for argument in rest)
                for seen, identifier in _seen(about, named):
                    yield Message(place(path), seen, expected, next_step, identifier)
        elif isinstance(node, ast.JoinedStr):
            yield from _said(place(path), _template(node, named))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "observed":
            for seen, identifier in _seen(node, named):
                if elsewhere := _told_elsewhere(tree, parents, node, named):
                    yield Message(place(path), seen, *elsewhere, identifier)


def phrases(root: Path = ROOT) -> dict[str, list[str]]:
    """Every phrase of the code that is to be translated, by its template, with the files that say it."""
    found: dict[str, list[str]] = {}
    for path in _sources(root):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in PHRASES and node.args:
                match node.args[-1]:
                    case ast.Constant(value=str(text)) if re.search("[A-Za-z]", filled(text)):
                        places = found.setdefault(text, [])
                        if (where := path.relative_to(root).as_posix()) not in places:
                            places.append(where)
    for path, told in of_roles(root):
        for text in (told["seen"], told["expected"], told["next_step"]):
            if re.search("[A-Za-z]", filled(text)):
                found.setdefault(text, []).append(path.relative_to(root).as_posix())
    for path in sorted(root.glob("roles/*/tasks/*.yml")):
        for text in _templates(yaml.safe_load(path.read_text(encoding="utf-8"))):
            found.setdefault(text, []).append(path.relative_to(root).as_posix())
    return found


def _templates(value: Any) -> Iterator[str]:
    """The phrases that tasks hand over as Phrase.as_data has them."""
    inside: list[Any] = []
    if isinstance(value, dict):
        if set(value) == {"template", "values"}:
            yield value["template"]
        inside = list(value.values())
    elif isinstance(value, list):
        inside = value
    for one in inside:
        yield from _templates(one)


def of_roles(root: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """What the tasks of the roles give to the module stop_unless, where that has a text of its own."""
    for path in sorted(root.glob("roles/*/tasks/*.yml")):
        for task in yaml.safe_load(path.read_text(encoding="utf-8")) or []:
            if (task.get("stop_unless") or {}).get("seen"):
                yield path, task["stop_unless"]


def _sources(root: Path) -> list[Path]:
    """The files of the project's own Python that say something to a person, in order."""
    patterns = ("module_utils/**/*.py", "library/*.py", "*_plugins/*.py", "scripts/plan_check.py")
    return sorted(path for pattern in patterns for path in root.glob(pattern))


def _told_elsewhere(
    tree: ast.Module, parents: Mapping[ast.AST, ast.AST], node: ast.Call, named: Mapping[str, ast.expr]
) -> tuple[str, str] | None:
    """What is expected and to be done, of a message that a function of the file makes an error of.

    Either stands behind it in the call, or in the error itself; None where the error is made on the spot.
    """
    argument: ast.AST = node
    while isinstance(parents[argument], ast.IfExp):
        argument = parents[argument]
    call = parents[argument]
    name = ""
    if isinstance(call, ast.Call):
        name = ast.unparse(call.func).rpartition(".")[2]
        if name in ERRORS or name == "Finding":
            return None
        before, behind = call.args, list[ast.expr]()
        if argument in before:
            behind = before[before.index(argument) + 1 :]
        if len(behind) == 2:
            expected, next_step = (_template(one, named) for one in behind)
            return expected, next_step
    at: ast.AST = node
    while not isinstance(at, (ast.FunctionDef, ast.Module)):
        at = parents[at]
    for function in [one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef) and one.name == name] + [at]:
        for error in ast.walk(function):
            if isinstance(error, ast.Call) and isinstance(error.func, ast.Name) and error.func.id in ERRORS:
                said = {keyword.arg: _template(keyword.value, named) for keyword in error.keywords}
                return said.get("expected", ""), said.get("next_step", "")
    return "…", "…"


def _seen(node: ast.expr, named: Mapping[str, ast.expr]) -> Iterator[tuple[str, str]]:
    """What was observed, with its identifier; each of two where the code chooses."""
    match node:
        case ast.IfExp(body=body, orelse=orelse):
            yield from _seen(body, named)
            yield from _seen(orelse, named)
        case ast.Call(func=ast.Name(id="observed"), args=[ast.Constant(value=str(identifier)), _]):
            yield _template(node, named), identifier
        case _:
            if re.search("[A-Za-z]", seen := _template(node, named)):  # otherwise handed on from another error
                yield seen, ""


def filled(template: str) -> str:
    """A template with … for what it is filled with."""
    return "".join(text + ("…" if name is not None else "") for text, name, _, _ in Formatter().parse(template))


def _template(node: ast.expr, named: Mapping[str, ast.expr]) -> str:
    """A text's template; that of an f-string has … for what it is filled with. ``named``: the file's own constants."""
    match node:
        case ast.Constant(value=str(text)):
            return _escaped(text)
        case ast.Call(func=ast.Name(id=name), args=[*_, ast.Constant(value=str(text))]) if name in PHRASES:
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_template(part, named) for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _template(left, named) + _template(right, named)
        case ast.IfExp(body=body, orelse=orelse):
            return _template(body, named) or _template(orelse, named)
        case ast.Name(id=name) if name in named:
            return _template(named[name], {})
    return "…"


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def of_role(path: Path) -> Iterator[Message]:
    """Every text of a role's tasks and variables that says what was expected."""
    where = path.relative_to(ROOT).parts[1 if path.is_relative_to(ROOT / "roles") else 0]
    for text in _texts(yaml.safe_load(path.read_text(encoding="utf-8"))):
        yield from _said(where, _escaped(_without_jinja(text)))


def _said(where: str, text: str) -> Iterator[Message]:
    """The message in a text that is one."""
    seen, _, rest = text.partition("Expected:")
    expected, following, next_step = (part.strip() for part in rest.partition("Next:"))
    if following and expected != "…":  # handed on from another error
        yield Message(where, seen.strip(), expected, next_step)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _without_jinja(text: str) -> str:
    text = re.sub(
        r"\{\{ '([\w.]+)' \| at_most_one_command.*?\}\}", r"ansible-playbook \1 -i … -l …", text, flags=re.DOTALL
    )
    text = re.sub(r"\{\{ [\w]+ \| at_most_one_command.*?\}\}", "ansible-playbook … -i … -l …", text, flags=re.DOTALL)
    return re.sub(r"\{\{.*?\}\}", "…", re.sub(r"\{%.*?%\}|\{#.*?#\}", "", text, flags=re.DOTALL), flags=re.DOTALL)


def place(path: Path) -> str:
    """The module by its package, such as pm2/reload; elsewhere the file alone."""
    core = ROOT / "module_utils/at_most_one"
    return path.relative_to(core).with_suffix("").as_posix() if path.is_relative_to(core) else path.stem


def messages() -> list[Message]:
    """All of them, once each."""
    found: list[Message] = []
    for path in _sources(ROOT):
        found += of_python(path)
    for path, told in of_roles(ROOT):
        place_of_it = f"roles/{path.relative_to(ROOT).parts[1]}"
        found.append(Message(place_of_it, told["seen"], told["expected"], told["next_step"], told["identifier"]))
    for pattern in ("roles/*/tasks/*.yml", "roles/*/vars/**/*.yml", "playbooks/**/*.yml"):
        for path in ROOT.glob(pattern):
            if "words_" not in path.name:  # a report's words for one language, not messages
                found += of_role(path)
    return sorted(set(found))


def table(all_messages: list[Message], language: str = "en") -> str:
    """A table for each block of identifiers, then one for each role."""
    *columns, elsewhere = HEADINGS[language]
    packages = {block: package for package, block in BLOCKS.items()} | {ELSEWHERE: elsewhere}
    sections: dict[str, list[Message]] = {}
    for message in sorted(all_messages, key=lambda message: (message.identifier or "~", message)):
        block = message.identifier[4:6]
        title = f"AMO-{block}xx: {packages.get(block, '')}" if block else message.where
        sections.setdefault(title, []).append(message)
    head = f"| | {' | '.join(columns)} |\n|---|---|---|---|\n"
    return "\n".join(
        f"### {title}\n\n{head}" + "\n".join(_row(message, language) for message in here) + "\n"
        for title, here in sections.items()
    )


def _row(message: Message, language: str) -> str:
    texts = (catalogue.template(text, language) for text in (message.seen, message.expected, message.next_step))
    cells = (" ".join(filled(text).split()).replace("|", "\\|") for text in texts)
    return f"| {message.identifier} | " + " | ".join(cells) + " |"


def misnumbered(all_messages: list[Message]) -> Iterator[str]:
    """What is wrong with the identifiers."""
    used = Counter(message.identifier for message in all_messages if message.identifier)
    for message in all_messages:
        block = BLOCKS.get(message.where.partition("/")[0], ELSEWHERE)
        found = IDENTIFIER.fullmatch(message.identifier)
        if message.identifier and (found is None or found[1] != block):
            yield f"{message.where}: {message.identifier} is not of AMO-{block}. Expected: it is. Next: renumber it."
    for identifier in (one for one, times in used.items() if times > 1):
        yield f"{identifier} names two messages. Expected: one. Next: give the newer one the next free number."


def main() -> int:
    """Replace what stands between the two markers."""
    found = messages()
    mute = [message for message in found if not (message.expected and message.next_step)]
    for message in mute:
        print(f"{message.where}: {message.seen!r} does not say what was expected and what to do next.")
    wrong = list(misnumbered(found))
    print(*wrong, sep="\n", end="\n" if wrong else "")
    differs = [path for language, path in PAGES.items() if not _written(path, table(found, language))]
    for path in differs:
        print(f"{path.name} misses a message. Expected: all that the code says. Next: make docs")
    return int(bool(mute or wrong or differs))


def _written(path: Path, content: str) -> bool:
    """Put the table between the two markers of the page; with --check, say whether it stands there."""
    old = path.read_text(encoding="utf-8")
    head, rest = old.split(BEGIN, 1)
    new = head + BEGIN + "\n" + content + "\n" + END + rest.split(END, 1)[1]
    if "--check" in sys.argv:
        return new == old
    path.write_text(new, encoding="utf-8")
    return True


if __name__ == "__main__":
    sys.exit(main())
