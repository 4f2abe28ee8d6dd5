"""Write the files that a run leaves for people and programs: each goes through one last search for secrets.

What they are made of is masked where it is read. This is the second net, at the one place that all of them pass; what
only looks like a secret on a page or in a figure loses no markup by it.
"""

from __future__ import annotations

import html
import json
import os
import re
from pathlib import Path
from typing import Any

from . import files
from .redaction import MASK, redact, redact_data

DIRECTORY, FILE = 0o750, 0o640  # for owner and group
_MARKUP = re.compile(r"(<(?:style|script)\b.*?</(?:style|script)>|<[^<>]*>)", re.DOTALL | re.IGNORECASE)
_PROGRAM = re.compile(r"<(?:style|script)\b", re.IGNORECASE)  # the project's own, without a value of a run
_ATTRIBUTE = re.compile(r'(=")([^"]*)(")')
_LABEL = re.compile(r'"((?:[^"\\\n]|\\.)*)"')


def directory(path: str | Path) -> Path:
    """Make the directory where it is not there, for owner and group, whatever the umask.

    Of those above it the group may write where the umask lets it: several accounts may deploy from one checkout.
    """
    target = Path(path)
    if not target.is_dir():
        umask = os.umask(0o022)
        os.umask(umask)
        files.directory(target.parent, DIRECTORY | (0o020 & ~umask))
    return files.directory(target, DIRECTORY)


def write(path: str | Path, text: str, mode: int = FILE) -> None:
    """Write the text without secrets, whole or not at all; its format is told by the name's ending."""
    files.write(path, without_secrets(Path(path).name, text), mode)


def without_secrets(name: str, text: str) -> str:
    """The text of a file of this name without what looks like a secret; the same text where nothing does."""
    ending = Path(name).suffix
    if ending == ".json":
        return _data(text, 4)
    if ending == ".jsonl":
        return "".join(f"{_data(line, None)}\n" for line in text.split("\n") if line)
    if ending == ".html":
        return "".join(_markup(part) if number % 2 else _words(part) for number, part in enumerate(_MARKUP.split(text)))
    if ending == ".prom":  # to redact, the label "key" of each sample would be a secret's name
        return _LABEL.sub(lambda found: found[0] if redact(found[1], (), None) == found[1] else f'"{MASK}"', text)
    return redact(text, longest_line=None) + ("\n" if text.endswith("\n") else "")


def _data(text: str, indent: int | None) -> str:
    document: Any = json.loads(text)
    shown = redact_data(document)
    return text if shown == document else json.dumps(shown, ensure_ascii=False, indent=indent)


def _markup(tag: str) -> str:
    if _PROGRAM.match(tag):
        return tag
    return _ATTRIBUTE.sub(lambda found: f"{found[1]}{_words(found[2])}{found[3]}", tag)


def _words(escaped: str) -> str:
    plain = html.unescape(escaped)
    shown = redact(plain, longest_line=None)
    if shown == "\n".join(plain.splitlines()):
        return escaped
    begin, end = len(escaped) - len(escaped.lstrip()), len(escaped.rstrip())
    return f"{escaped[:begin]}{html.escape(shown.strip())}{escaped[end:]}"
