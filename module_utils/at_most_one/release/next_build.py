"""What tells one build of Next.js from another: its id, its assets, and the ids of its server actions.

Next.js hashes the id of each server action with a key that it makes anew for every build, unless the environment of the
build or a .env file names one: NEXT_SERVER_ACTIONS_ENCRYPTION_KEY. The key stands in the build's manifest. Here it is
compared, and it never leaves this file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import assets

KEY = "NEXT_SERVER_ACTIONS_ENCRYPTION_KEY"
STATIC = ".next/static"
_MANIFEST = ".next/server/server-reference-manifest.json"
_ENV_FILES = (".env.production.local", ".env.local", ".env.production", ".env")  # what `next build` reads
_DECLARED = re.compile(rf"^\s*(?:export\s+)?{KEY}\s*=\s*(['\"]?)(?P<value>[^'\"\s#]+)\1", re.MULTILINE)


@dataclass(frozen=True)
class Served:
    """What users meet of a build. A field is empty where there is nothing of it."""

    build_id: str
    static: str  # a digest over the names and sizes of its own assets
    actions: str  # a digest over the ids of its server actions


@dataclass(frozen=True)
class ServerActions:
    """The functions of a build that its pages call by their ids."""

    count: int
    pages: list[str]
    gone: int  # of the release that is served, those that this build does not know
    key_stays: bool  # a later build makes the same ids


@dataclass(frozen=True)
class Build:
    """One build of Next.js."""

    serves: Served
    server_actions: ServerActions

    def kept(self) -> dict[str, Any]:
        """As a mapping."""
        return asdict(self)


def read(release: Path, live: Path) -> Build:
    """The build in ``release``; ``live`` is what is served until now, which may be the same."""
    manifest = _manifest(release)
    served = {} if live.resolve() == release.resolve() else _manifest(live)
    actions = _actions(manifest)
    key = manifest.get("encryptionKey")
    return Build(
        Served(
            build_id=_text(release / ".next/BUILD_ID").strip(),
            static=_digest(sorted(_own_assets(release))),
            actions=_digest(sorted(actions)),
        ),
        ServerActions(
            count=len(actions),
            pages=sorted({page for pages in actions.values() for page in pages}),
            gone=len(_actions(served).keys() - actions.keys()),
            key_stays=bool(key) and key in {*_declared(release), served.get("encryptionKey")},
        ),
    )


def _manifest(release: Path) -> dict[str, Any]:
    try:
        found = json.loads(_text(release / _MANIFEST))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _actions(manifest: dict[str, Any]) -> dict[str, list[str]]:
    """Ids of server actions, to the pages that use each."""
    found: dict[str, list[str]] = {}
    for runtime in ("node", "edge"):
        for action, about in manifest.get(runtime, {}).items():
            pages = found.setdefault(action, [])
            pages += (_address(page) for page in about.get("workers", {}))
    return found


def _address(page: str) -> str:
    """``app/(group)/note/page`` as people know it: ``/note``."""
    parts = page.removeprefix("app/").split("/")
    return "/" + "/".join(part for part in parts if not part.startswith("(") and part not in ("page", "route"))


def _declared(release: Path) -> Iterator[str]:
    """The keys that a build of this release is given: by the environment, or by the files that Next.js reads."""
    if KEY in os.environ:
        yield os.environ[KEY]
    for name in _ENV_FILES:
        for match in _DECLARED.finditer(_text(release / name)):
            yield match["value"]


def _own_assets(release: Path) -> Iterator[str]:
    carried = assets.listed(release)
    static = release / STATIC
    for file in static.rglob("*"):
        name = file.relative_to(static).as_posix()
        if name not in carried and file.is_file():
            yield f"{name} {file.stat().st_size}"


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest() if lines else ""


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
