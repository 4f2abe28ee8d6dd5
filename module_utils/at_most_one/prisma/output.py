"""What Prisma's command line prints, read without what nobody may see: passwords, credentials, row values."""

from __future__ import annotations

import re

from ..postgres.connection import Login
from ..system.redaction import redact


def scrub(text: str, login: Login) -> str:
    """The text without colours, without the password in any spelling, without any URL's credentials, without values.

    PostgreSQL's DETAIL lines name row values (``Key (a)=(value)``, ``Failing row contains (...)``): they go as well.
    """
    text = redact(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text), [login.password])
    text = re.sub(r"(Key \(.*?\))=\(.*?\)(?= |$|\.|\")", r"\1=(...)", text, flags=re.MULTILINE)
    return re.sub(r"(Failing row contains) \(.*", r"\1 (...)", text)


def error_code(text: str) -> str | None:
    """Prisma's error code, like P3018, if the text names one."""
    found = re.search(r"\bP[1-6]\d{3}\b", text)
    return found.group() if found else None


def first_lines(text: str, limit: int = 6) -> list[str]:
    """The lines that say what went wrong: from the first that looks like an error, without stack traces."""
    trace = re.compile(r"\d+: \w+(::\w+)+|with \w+=|at \S+\.rs:\d+")
    lines = [line.strip()[:200] for line in text.splitlines() if line.strip() and not trace.match(line.strip())]
    start = next((n for n, line in enumerate(lines) if re.search(r"\bP[1-6]\d{3}\b|error", line, re.IGNORECASE)), 0)
    return lines[start : start + limit]
