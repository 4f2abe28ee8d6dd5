"""A migration.sql, statement by statement: what each one does to an index, and what the others begin with.

Pure text. Recording a migration as applied without running it is only true when every statement is understood, so what
is not recognised here is refused, never guessed. Understood are CREATE INDEX, DROP INDEX IF EXISTS, COMMENT ON INDEX,
SET search_path, BEGIN and COMMIT.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Union

from ..findings import say

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
_QUOTES = re.compile(r"^(?:[eE]?'|\$\w*\$)|(?:'|\$\w*\$)$")  # around a literal


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
class DropIndex:
    """``DROP INDEX [CONCURRENTLY] IF EXISTS``: the schemas, where they are written, and the names."""

    targets: tuple[tuple[str | None, str], ...]


@dataclass(frozen=True)
class CommentOnIndex:
    """``COMMENT ON INDEX``; ``text`` is the literal or NULL, verbatim."""

    name: str
    schema: str | None
    text: str


@dataclass(frozen=True)
class SetSearchPath:
    """``SET [SESSION | LOCAL] search_path``: the schemas in their order."""

    schemas: tuple[str, ...]


@dataclass(frozen=True)
class Transaction:
    """``BEGIN`` or, when it does not begin one, ``COMMIT``."""

    begins: bool


Action = Union[CreateIndex, DropIndex, CommentOnIndex, SetSearchPath, Transaction]


@dataclass(frozen=True)
class Statement:
    """One statement: its number from 1, its first words, and what it does, if that is understood.

    ``search_path`` is the one that the script has set before it; empty: the connection's own, the plan's schema.
    ``names`` are all words and names in it, as PostgreSQL folds them, those inside its literals too.
    """

    number: int
    beginning: str
    action: Action | None
    search_path: tuple[str, ...] = ()
    names: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def index(self) -> CreateIndex | None:
        """The index that it builds, if that is what it does."""
        return self.action if isinstance(self.action, CreateIndex) else None


def split(text: str) -> tuple[Statement, ...]:
    """The statements of a script in their order; empty ones and comments are none."""
    statements: list[Statement] = []
    tokens: list[Token] = []
    search_path: tuple[str, ...] = ()

    def end(text: str) -> None:
        nonlocal search_path
        if tokens:
            statements.append(_statement(len(statements) + 1, tokens, text, search_path))
            tokens.clear()
            if isinstance(action := statements[-1].action, SetSearchPath):
                search_path = action.schemas

    for token in tokens_of(text):
        if token.kind == "end":
            end(text[: token.start])
        else:
            tokens.append(token)
    end(text)
    return tuple(statements)


def tokens_of(text: str) -> Iterator[Token]:
    """The words, names, literals and signs of a text, without comments and space."""
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


def names_in(tokens: Iterable[Token]) -> frozenset[str]:
    """The words and names that they write; of a literal those of its text, which a DO block or EXECUTE may run."""
    found: set[str] = set()
    for token in tokens:
        if token.kind in ("string", "dollar"):
            found |= names_in(tokens_of(_QUOTES.sub("", token.text)))
        elif token.name is not None:
            found.add(token.name)
    return frozenset(found)


def _comment_end(text: str, start: int) -> tuple[int, str]:
    depth = 0
    for mark in re.finditer(r"/\*|\*/", text[start:]):
        depth += 1 if mark.group() == "/*" else -1
        if depth == 0:
            return start + mark.end(), "comment"
    return len(text), "broken"


def _statement(number: int, tokens: Sequence[Token], text: str, search_path: tuple[str, ...]) -> Statement:
    broken = next((token for token in tokens if token.kind == "broken"), None)
    if broken is not None:
        return Statement(number, say("something that never ends: {text}", text=broken.text[:20]), None, search_path)
    words = [token.text.upper() if token.kind == "word" else token.text for token in tokens[:_BEGINNING_WORDS]]
    readers = (_create_index, _drop_index, _comment_on_index, _set_search_path, _transaction)
    action = next((found for read in readers if (found := read(_Reader(tokens, text)))), None)
    return Statement(number, " ".join(words)[:60], action, search_path, names_in(tokens))


class _Reader:
    """Takes a statement apart from its beginning."""

    def __init__(self, tokens: Sequence[Token], text: str) -> None:
        self.tokens, self.text = list(tokens), text

    def take(self, *words: str) -> bool:
        """Go past these key words, if they are next."""
        there = len(self.tokens) >= len(words) and all(token.is_word(word) for token, word in zip(self.tokens, words))
        if there:
            del self.tokens[: len(words)]
        return there

    def take_sign(self, sign: str) -> bool:
        """Go past this sign, if it is next."""
        there = bool(self.tokens) and self.tokens[0].kind == "other" and self.tokens[0].text == sign
        if there:
            del self.tokens[0]
        return there

    def take_name(self) -> str | None:
        return self.tokens.pop(0).name if self.tokens else None

    def take_qualified(self) -> tuple[str | None, str] | None:
        """A name with or without a schema."""
        schema, name = None, self.take_name()
        if self.take_sign("."):
            schema, name = name, self.take_name()
            if schema is None:
                return None
        return (schema, name) if name is not None else None

    def at_end(self) -> bool:
        return not self.tokens


def _create_index(reader: _Reader) -> CreateIndex | None:
    """CREATE [UNIQUE] INDEX [CONCURRENTLY] [IF NOT EXISTS] name ON [schema.]table rest; else ``None``."""
    if not reader.take("CREATE"):
        return None
    unique = reader.take("UNIQUE")
    if not reader.take("INDEX"):
        return None
    concurrently = reader.take("CONCURRENTLY")
    reader.take("IF", "NOT", "EXISTS")
    if reader.take("ON"):  # without a name PostgreSQL makes one up
        return None
    name = reader.take_name()
    if name is None or not reader.take("ON") or reader.take("ONLY"):
        return None  # ONLY leaves a partitioned table's index invalid; on any other table it says nothing
    table = reader.take_qualified()
    if table is None or reader.at_end():
        return None
    return CreateIndex(name, *table, unique, concurrently, reader.text[reader.tokens[0].start :])


def _drop_index(reader: _Reader) -> DropIndex | None:
    """DROP INDEX [CONCURRENTLY] IF EXISTS [schema.]name [, ...] [RESTRICT]; CASCADE may take more, so it is not."""
    if not reader.take("DROP", "INDEX"):
        return None
    reader.take("CONCURRENTLY")
    if not reader.take("IF", "EXISTS"):
        return None
    targets = [reader.take_qualified()]
    while reader.take_sign(","):
        targets.append(reader.take_qualified())
    reader.take("RESTRICT")
    known = tuple(target for target in targets if target is not None)
    return DropIndex(known) if reader.at_end() and len(known) == len(targets) else None


def _comment_on_index(reader: _Reader) -> CommentOnIndex | None:
    """COMMENT ON INDEX [schema.]name IS literal or NULL."""
    if not reader.take("COMMENT", "ON", "INDEX"):
        return None
    target = reader.take_qualified()
    if target is None or not reader.take("IS") or len(reader.tokens) != 1:
        return None
    token = reader.tokens[0]
    literal = token.kind in ("string", "dollar") or token.is_word("NULL")
    return CommentOnIndex(target[1], target[0], token.text) if literal else None


def _set_search_path(reader: _Reader) -> SetSearchPath | None:
    """SET [SESSION | LOCAL] search_path = or TO schema [, ...]; DEFAULT leads nobody knows where."""
    if not reader.take("SET"):
        return None
    _ = reader.take("SESSION") or reader.take("LOCAL")
    if reader.take_name() != "search_path" or not (reader.take("TO") or reader.take_sign("=")):
        return None
    schemas: list[str] = []
    while reader.tokens and not reader.tokens[0].is_word("DEFAULT"):
        token = reader.tokens.pop(0)
        plain = token.kind == "string" and token.text.startswith("'")
        name = token.text[1:-1].replace("''", "'") if plain else token.name
        if not name:
            return None
        schemas.append(name)
        if reader.at_end():
            return SetSearchPath(tuple(schemas))
        if not reader.take_sign(","):
            return None
    return None


def _transaction(reader: _Reader) -> Transaction | None:
    """BEGIN, START TRANSACTION, COMMIT or END, without a mode."""
    begins = reader.take("START", "TRANSACTION")
    if not begins:
        begins = reader.take("BEGIN")
        if not begins and not (reader.take("COMMIT") or reader.take("END")):
            return None
        _ = reader.take("WORK") or reader.take("TRANSACTION")
    return Transaction(begins) if reader.at_end() else None
