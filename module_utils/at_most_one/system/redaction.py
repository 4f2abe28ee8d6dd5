"""Takes secrets out of text that other programs wrote, before a person or a log sees it."""

from __future__ import annotations

import re
from collections.abc import Iterable

MASK = "***"
_LONGEST_LINE = 4_000  # a minified line can be megabytes; nobody reads past this

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # scheme://user:password@host: everything up to the last @, because a password may itself contain / and @.
    (re.compile(r"(\w://)[^\s'\"<>]*@"), rf"\1{MASK}@"),
    # The same, cut off before its @. host:port is not a secret.
    (re.compile(r"(\w://[^\s:/@'\"]+:)(?!\d+(?:\D|$))[^\s'\"@]+"), rf"\1{MASK}"),
    (re.compile(r"(?i)\b((?:set-)?cookie|authorization)(\s*:\s*).+"), rf"\1\2{MASK}"),
    (re.compile(r"(?i)\b(bearer)\s+[\w.~+/=-]+"), rf"\1 {MASK}"),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+(?:\.[\w-]*)*"), MASK),  # a JSON web token
    # NAME=value, "name": "value". The look-behind anchors at a word's start, so that long words cost linear time.
    (
        re.compile(
            r"(?i)(?<![\w-])([\w-]*?(?:password|passwd|passphrase|secret|token|credential|api[_-]?key|private[_-]?key)"
            r"[\w-]*[\"']?\s*[:=]\s*)(\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.)*'?|[^\s,;&}\])]+)"
        ),
        rf"\1{MASK}",
    ),
)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` without what looks like a secret and without the known ``secrets``; very long lines are cut."""
    known = sorted({secret for secret in secrets if secret}, key=len, reverse=True)
    lines = []
    for line in text.splitlines():
        for secret in known:
            line = line.replace(secret, MASK)
        line = line[:_LONGEST_LINE]
        for pattern, replacement in _PATTERNS:
            line = pattern.sub(replacement, line)
        lines.append(line)
    return "\n".join(lines)


def first_line(text: str, secrets: Iterable[str] = (), length: int = 200) -> str:
    """The first line that says something, redacted, at most ``length`` characters long."""
    for line in redact(text, secrets).splitlines():
        if line.strip():
            return line.strip()[:length]
    return ""
