"""Tell which build of a Next.js application answers where no header names it, and whether its pages find their parts.

Two facts are taken from a build on disk: its id, which Next.js writes into each page (the flight data of the App
Router, ``__NEXT_DATA__`` of the Pages Router), and a file below ``/_next/static`` that only this build has: ``next
start`` lists those files when it starts, so a process of another build answers 404. Where neither differs, two builds
look the same from outside, and nothing here claims otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from ..errors import OperatorError
from ..findings import observed, say
from .client import Answer, Client, NoAnswer

_STATIC = ".next/static"
_REDIRECTS = 3
_OK = 200


@dataclass(frozen=True)
class BuildProof:
    """What tells one build from those that serve beside it."""

    build_id: str
    others: tuple[str, ...] = ()  # ids of builds that may answer in its place, to name one when it does
    base_path: str = ""
    in_page: bool = True  # whether its id is its own
    file: str | None = None  # the path of a file that no other build serves

    @property
    def proves(self) -> bool:
        """Whether anything differs at all."""
        return self.in_page or self.file is not None


class Asker:
    """Asks one origin, for example ``http://127.0.0.1:3000``, on one connection: PM2 gives that to one process."""

    def __init__(self, origin: str, *, timeout_s: float = 5.0) -> None:
        self.origin = origin
        self._client = Client(origin, timeout_s=timeout_s, keepalive=True)

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str) -> Answer:
        """The answer to one request. Raises NoAnswer."""
        return self._client.request("GET", path)

    def page(self, path: str) -> Answer:
        """The page at ``path``, redirects of the same origin followed. Raises NoAnswer."""
        for _ in range(_REDIRECTS):
            answer = self.get(path)
            target = urlsplit(urljoin(f"{self.origin}{path}", answer.header("location") or ""))
            same = f"{target.scheme}://{target.netloc}" == self.origin or not answer.header("location")
            if answer.status not in (301, 302, 303, 307, 308) or not same:
                return answer
            path = target.path + (f"?{target.query}" if target.query else "")
        return answer


def origin_of(url: str) -> str:
    """Scheme, host and port of an address."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def build_id(release: Path) -> str | None:
    """The id of the finished build in a release; None where there is none."""
    try:
        return (release / ".next" / "BUILD_ID").read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def proof_of(release: Path, serving: Collection[Path]) -> BuildProof | None:
    """What tells the build of ``release`` from those of the directories that serve now; None for no Next.js build."""
    own = build_id(release)
    if own is None:
        return None
    rivals = [one for one in serving if one.resolve() != release.resolve()]
    known = {build_id(one) for one in [*rivals, *release.parent.glob("*")]} - {None, own}
    routes = _json(release / ".next" / "routes-manifest.json")
    base = str(routes.get("basePath") or "")
    name = None if _static_is_rewritten(routes) else _only_here(release, rivals, own)
    return BuildProof(
        own,
        tuple(sorted(filter(None, known))),
        base,
        in_page=own not in {build_id(one) for one in rivals},
        file=f"{base}/_next/static/{name}" if name else None,
    )


def seen_build(proof: BuildProof, asker: Asker) -> str | None:
    """The id of the build that answers, as far as it shows: the wanted one, another one, or None.

    The wanted one is returned only when everything that could tell it from another one says so. Raises NoAnswer.
    """
    named = _named(proof, asker.page(proof.base_path or "/"))
    if named not in (None, proof.build_id):
        return named
    if proof.file:
        answer = asker.get(proof.file)
        return proof.build_id if answer.status == _OK else f"(no {proof.file}: {answer.status})"
    return named if proof.in_page else None


def page_names_a_build(proof: BuildProof, asker: Asker) -> bool:
    """Whether the page that is served now carries the id of any known build: not every page does."""
    try:
        return _named(proof, asker.page(proof.base_path or "/")) is not None
    except NoAnswer:
        return False


def missing_files(release: Path) -> list[str]:
    """The files below .next that the build's own manifests name and that are not there."""
    directory = release / ".next"
    named: set[str] = set()
    for manifest in ("build-manifest.json", "app-build-manifest.json"):
        content = _json(directory / manifest)
        lists = [content.get(key) for key in ("polyfillFiles", "rootMainFiles")]
        lists += list((content.get("pages") or {}).values())
        named |= {name for one in lists if isinstance(one, list) for name in one if isinstance(name, str)}
    return sorted(f".next/{name}" for name in named if not (directory / name).is_file())


def require_files(release: Path) -> None:
    """Raises OperatorError when a file is missing that the build's own manifests name."""
    missing = missing_files(release)
    if missing:
        more = say(" and {count} more", count=len(missing) - 3) if len(missing) > 3 else ""
        raise OperatorError(
            observed(
                "AMO-4301",
                "The build of {release} is not whole: it has no {missing}{more}.",
                release=release,
                missing=", ".join(missing[:3]),
                more=more,
            ),
            expected=say("every file that .next/build-manifest.json names: without them its pages are dead."),
            next_step=say(
                "rm -rf {release}, then deploy again: it is built anew. Nothing that serves was touched.",
                release=release,
            ),
            missing=missing,
        )


def broken_assets(asker: Asker, release: Path, live: Asker) -> list[str]:
    """The scripts and styles of the first page that do not answer 200, with what they do answer. Raises NoAnswer.

    One of this build must also lie in the release: a rewrite may fetch it from another one, which will be gone. One
    that is no part of a build (a file of ``public``, a proxied script) counts only when the ``live`` service has it.
    """
    base = str(_json(release / ".next" / "routes-manifest.json").get("basePath") or "")
    page = asker.page(base or "/")
    broken = list[str]()
    for path in _assets(page, asker.origin) if page.status == _OK else ():
        status = asker.get(path).status
        name, static = path.partition("?")[0], f"{base}/_next/static/"
        if name.startswith(static) and status == _OK and not (release / _STATIC / name.removeprefix(static)).is_file():
            broken.append(say("{path}: not in this release", path=path))
        elif status != _OK and (name.startswith(static) or _answers(live, path)):
            broken.append(f"{path}: {status}")
    return broken


def _answers(asker: Asker, path: str) -> bool:
    try:
        return asker.get(path).status == _OK
    except NoAnswer:
        return False


def _named(proof: BuildProof, page: Answer) -> str | None:
    """The id that a page carries, of those that are known."""
    text = page.body.decode("utf-8", "replace").replace('\\"', '"')
    for one in (proof.build_id, *proof.others):
        if any(mark in text for mark in (f'"b":"{one}"', f'"buildId":"{one}"', f"/_next/static/{one}/")):
            return one
    return None


def _only_here(release: Path, rivals: Collection[Path], own: str) -> str | None:
    """A static file that no rival has, the build's own manifest before any other."""
    root = release / _STATIC
    manifest = root / own / "_buildManifest.js"
    for file in [manifest, *sorted(root.rglob("*.js"))]:
        name = file.relative_to(root)
        if file.is_file() and not any((one / _STATIC / name).exists() for one in rivals):
            return name.as_posix()
    return None


def _static_is_rewritten(routes: dict[str, Any]) -> bool:
    """Whether the application hands static files out by itself: then who has one in its list does not matter."""
    rewrites = routes.get("rewrites") or {}
    several = rewrites.values() if isinstance(rewrites, dict) else [rewrites]
    return any("/_next/static" in str(one.get("source")) for rules in several for one in rules)


def _assets(page: Answer, origin: str) -> Iterator[str]:
    """The paths of a page's scripts and styles that this origin serves, each once."""
    reader = _Reader()
    reader.feed(page.body.decode("utf-8", "replace"))
    for reference in dict.fromkeys(reader.found):
        target = urlsplit(urljoin(f"{origin}/", reference))
        if f"{target.scheme}://{target.netloc}" == origin:
            yield target.path + (f"?{target.query}" if target.query else "")


class _Reader(HTMLParser):
    """Collects what a page loads as script or style."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        kinds = values.get("rel", "").lower().split()
        loaded = {"stylesheet", "modulepreload"} & set(kinds)
        loaded |= {"preload"} & set(kinds) if values.get("as") in ("script", "style") else set()
        if tag == "script" and values.get("src"):
            self.found.append(values["src"])
        elif tag == "link" and loaded and values.get("href"):
            self.found.append(values["href"])


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
