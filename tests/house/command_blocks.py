"""The command blocks of the documents, as commands: prompts, comments and continued lines are taken off.

A fence says what it holds. One without a label, or lines that are only indented, could hide a command from the tests,
so both are errors here. A block that cannot run in tests has the reason in a comment right before it:
``<!-- not run in tests: the addresses are your own. -->``
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
COMMANDS, STATEMENTS, DATA = {"sh", "bash", "console"}, {"sql"}, {"text", "yaml", "json", "nginx", "python"}
MARK = re.compile(r"<!--\s*not run in tests:\s*(.*?)\s*-->", re.DOTALL)
# What a reader replaces: <file>, <commit_before>, <40 hexadecimal digits>, <환경>. A redirection never closes.
PLACEHOLDER = re.compile(r"<[^<>\n]+>")
SOME = "SOME-VALUE"
# Within a sentence: a command, or the options of a playbook without its name.
SPAN = re.compile(r"(?:make|ansible-playbook|\.venv/bin/python|\w+\.yml(?= -)|-e|--tags) \S")


class BlockError(ValueError):
    """A block that says not what it holds."""


@dataclass(frozen=True)
class Command:
    """One command of a block, as a shell would take it apart."""

    page: str
    line: int
    words: tuple[str, ...]
    environment: tuple[str, ...] = ()  # NAME=value before it

    @property
    def text(self) -> str:
        return shlex.join([*self.environment, *self.words])

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


@dataclass(frozen=True)
class Block:
    """A fence that holds commands or SQL. ``reason``: why it does not run in tests, when it says so."""

    page: str
    line: int
    label: str
    content: str
    reason: str | None = None

    @property
    def commands(self) -> tuple[Command, ...]:
        return tuple(_commands(self)) if self.label in COMMANDS else ()

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """The documents that people follow."""
    names = ["README.md", "README.ko.md", "CONTRIBUTING.md"]
    return [*names, *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").glob("*.md")))]


def blocks(page: str, text: str) -> list[Block]:
    """Every block of a page that holds commands or SQL."""
    found: list[Block] = []
    before: Token | None = None
    for token in MarkdownIt("commonmark").parse(text):
        line = token.map[0] + 1 if token.map else 0
        if token.type == "code_block":
            raise BlockError(
                f"{page}:{line}: indented lines. Expected: a fence that says what it holds. Next: ```console"
            )
        mark = MARK.fullmatch(before.content.strip()) if before and before.type == "html_block" else None
        if token.type == "fence":
            label = token.info.split(maxsplit=1)[0] if token.info.strip() else ""
            if label not in COMMANDS | STATEMENTS | DATA:
                raise BlockError(
                    f"{page}:{line}: a fence labelled {label!r}. Expected: one of "
                    f"{', '.join(sorted(COMMANDS | STATEMENTS | DATA))}. Next: say what it holds; output is text."
                )
            if label not in DATA:
                found.append(Block(page, line, label, token.content, mark and mark[1]))
            elif mark:
                raise BlockError(f"{page}:{line}: {label} is marked as not run. Next: take the comment out.")
        elif mark:
            raise BlockError(f"{page}:{line}: a mark without a block below it. Next: move it there or take it out.")
        before = token
    return found


def spans(page: str, text: str) -> Iterator[Command]:
    """The commands that stand within sentences: they are not run, but what they name has to be there."""
    for token in MarkdownIt("commonmark").parse(text):
        for child in token.children or ():
            if child.type == "code_inline" and token.map and (start := SPAN.match(child.content)):
                words = _words(child.content)
                if start[0].startswith("-") or words[0].endswith(".yml"):
                    words = ["ansible-playbook", *words]
                yield Command(page, token.map[0] + 1, tuple(words))


def _commands(block: Block) -> Iterator[Command]:
    """A line without a prompt in a console is what a command has printed; a script has no prompts."""
    lines = enumerate(block.content.splitlines(), block.line + 1)
    for number, line in lines:
        if block.label == "console":
            if not line.startswith("$ "):
                raise BlockError(f"{block.page}:{number}: {line!r} has no prompt. Expected: `$ ` before each command.")
            line = line.removeprefix("$ ")
        whole = line
        while whole.endswith("\\"):
            whole = whole.removesuffix("\\") + next(lines, (0, ""))[1]
        yield from commands_of(whole, block.page, number)


def commands_of(line: str, page: str, number: int) -> Iterator[Command]:
    """The commands of one line."""
    for words in _split(_words(line)):
        first = next((place for place, word in enumerate(words) if "=" not in word), len(words))
        yield Command(page, number, tuple(words[first:]), tuple(words[:first]))


def _words(text: str) -> list[str]:
    lexer = shlex.shlex(PLACEHOLDER.sub(SOME, text), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    return list(lexer)


def _split(words: Iterable[str]) -> list[list[str]]:
    """At what separates commands."""
    parts: list[list[str]] = [[]]
    for word in words:
        if word in ("&&", "||", ";", "|"):
            parts.append([])
        else:
            parts[-1].append(word)
    return [part for part in parts if part]
