"""A migration.sql, statement by statement: which of them build an index, and what the others begin with.

Pure text. Recording a migration as applied without running it is only true when every statement is understood, so what
is not recognised here is refused, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .plan import Plan

# PostgreSQL's lexical rules (manual, 4.1), as far as they decide where a statement ends. Nested comments are counted.
_TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<line>--[^\n]*)"
    r"|(?P<comment>/\*)"
    r"|(?P<string>[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*')"
    r'|(?P<quoted>"(?:[^"]|"")+")'
    r"|(?P<dollar>\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$)"
    r"|(?P<word>[^\W\d][\w$]*)"
    r"|(?P<number>\d[\w.]*)"
    r"|(?P<end>;)"
    r"|(?P<broken>['\"]|\$(?:[^\W\d]\w*)?\$)"  # an opening quote without its end
    r"|(?P<other>.)",
    re.DOTALL,
)
_BEGINNING_WORDS = 2


@dataclass(frozen=True)
class Token:
    """One word, name, literal or sign of a statement; comments and space are none."""

    kind: str
    text: str
    start: int
    end: int

    def is_word(self, *words: str) -> bool:
        """Whether this is one of the key words, which are given in capitals."""
        return self.kind == "word" and self.text.upper() in words

    @property
    def name(self) -> str | None:
        """The identifier that this token writes: folded to lower case unless it is quoted."""
        if self.kind == "quoted":
            return self.text[1:-1].replace('""', '"')
        return self.text.lower() if self.kind == "word" else None


@dataclass(frozen=True)
class CreateIndex:
    """``CREATE INDEX``, taken apart as far as the table's name; ``rest`` is everything after it, verbatim."""

    name: str
    schema: str | None
    table: str
    unique: bool
    concurrently: bool
    rest: str


@dataclass(frozen=True)
class Statement:
    """One statement: its number from 1, its first words, and the index that it builds, if that is what it does."""

    number: int
    beginning: str
    index: CreateIndex | None


def split(text: str) -> tuple[Statement, ...]:
    """The statements of a script in their order; empty ones and comments are none."""
    statements: list[Statement] = []
    tokens: list[Token] = []
    for token in _tokens(text):
        if token.kind != "end":
            tokens.append(token)
        elif tokens:
            statements.append(_statement(len(statements) + 1, tokens, text[: token.start]))
            tokens = []
    if tokens:
        statements.append(_statement(len(statements) + 1, tokens, text))
    return tuple(statements)


def read(release: str | Path, migration: str) -> tuple[Statement, ...]:
    """The statements of a release's migration. The caller has seen to it that the file is there."""
    return split((Path(release) / "prisma" / "migrations" / migration / "migration.sql").read_text())


def beyond(statements: Sequence[Statement], plan: Plan) -> list[str]:
    """What the migration does besides building each planned index once, as phrases; empty when it does just that."""
    planned = {index.name for index in plan.indexes}
    phrases, built = [], set()
    for statement in statements:
        if statement.index is None:
            phrases.append(f"statement {statement.number} begins with {statement.beginning}")
        elif statement.index.name not in planned:
            phrases.append(f"statement {statement.number} builds {statement.index.name}, which the plan does not name")
        elif statement.index.name in built:
            phrases.append(f"statement {statement.number} builds {statement.index.name} a second time")
        else:
            built.add(statement.index.name)
    return phrases + [f"no statement builds {name}" for name in sorted(planned - built)]


def _tokens(text: str) -> Iterator[Token]:
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        assert found is not None  # noqa: S101  (the last alternative takes any character)
        kind, end = str(found.lastgroup if found.lastgroup != "tag" else "dollar"), found.end()
        if kind == "comment":
            end, kind = _comment_end(text, position)
        if kind == "broken":  # the rest is inside a quote or a comment that never ends: PostgreSQL refuses it
            end = len(text)
        if kind not in ("space", "line", "comment"):
            yield Token(kind, text[position:end], position, end)
        position = end


def _comment_end(text: str, start: int) -> tuple[int, str]:
    depth = 0
    for mark in re.finditer(r"/\*|\*/", text[start:]):
        depth += 1 if mark.group() == "/*" else -1
        if depth == 0:
            return start + mark.end(), "comment"
    return len(text), "broken"


def _statement(number: int, tokens: Sequence[Token], text: str) -> Statement:
    broken = next((token for token in tokens if token.kind == "broken"), None)
    if broken is not None:
        return Statement(number, f"something that never ends: {broken.text[:20]}", None)
    words = [token.text.upper() if token.kind == "word" else token.text for token in tokens[:_BEGINNING_WORDS]]
    return Statement(number, " ".join(words)[:60], _create_index(list(tokens), text))


def _create_index(tokens: list[Token], text: str) -> CreateIndex | None:
    """CREATE [UNIQUE] INDEX [CONCURRENTLY] [IF NOT EXISTS] name ON [ONLY] [schema.]table rest; else ``None``."""

    def take(*words: str) -> bool:
        if len(tokens) >= len(words) and all(token.is_word(word) for token, word in zip(tokens, words, strict=False)):
            del tokens[: len(words)]
            return True
        return False

    def take_name() -> str | None:
        return tokens.pop(0).name if tokens else None

    if not take("CREATE"):
        return None
    unique = take("UNIQUE")
    if not take("INDEX"):
        return None
    concurrently = take("CONCURRENTLY")
    take("IF", "NOT", "EXISTS")
    if tokens and tokens[0].is_word("ON"):  # without a name PostgreSQL makes one up
        return None
    name = take_name()
    if name is None or not take("ON") or (tokens and tokens[0].is_word("ONLY")):
        return None  # ONLY leaves a partitioned table's index invalid; on any other table it says nothing
    schema, table = None, take_name()
    if len(tokens) >= 2 and tokens[0].text == ".":
        del tokens[0]
        schema, table = table, take_name()
    if table is None or not tokens:
        return None
    return CreateIndex(name, schema, table, unique, concurrently, text[tokens[0].start :])
