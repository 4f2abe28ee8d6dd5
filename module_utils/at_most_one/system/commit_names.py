"""What a person is shown of a commit, or of a version that is none of git's."""

from __future__ import annotations

import re

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


def short(name: str) -> str:
    """The first 12 digits of a commit; the name of a version as it is, because its end tells it from another one."""
    return name[:12] if _COMMIT.fullmatch(name) else name
