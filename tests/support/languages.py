"""A catalogue of a few words, as gettext reads it."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

DOMAIN = "at_most_one"


def a_language(directory: Path, name: str, words: Mapping[str, str]) -> Path:
    """Write the language ``name`` below ``directory``, and return that."""
    header = "Content-Type: text/plain; charset=utf-8\n"
    texts = sorted((a.encode(), b.encode()) for a, b in {"": header, **words}.items())
    tables, data = b"", b""
    begin = 28 + 16 * len(texts)
    for part in (0, 1):
        for pair in texts:
            tables += struct.pack("<II", len(pair[part]), begin + len(data))
            data += pair[part] + b"\0"
    # https://www.gnu.org/software/gettext/manual/html_node/MO-Files.html
    head = struct.pack("<7I", 0x950412DE, 0, len(texts), 28, 28 + 8 * len(texts), 0, 0)
    path = directory / name / "LC_MESSAGES" / f"{DOMAIN}.mo"
    path.parent.mkdir(parents=True)
    path.write_bytes(head + tables + data)
    return directory
