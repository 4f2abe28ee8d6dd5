"""The git remote that the code comes from. What its address carries to prove itself stays out of every command line.

``git ls-remote https://name:token@host/...`` shows the token to everybody who can run ``ps``, and so does git's own
helper for a remote of that address. So git gets the bare address, and asks a credential helper whose text names two
environment variables: https://git-scm.com/docs/gitcredentials
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from ..errors import OperatorError
from ..findings import observed, say
from ..system import files
from ..system.redaction import redact
from . import retention

ASK_TIMEOUT_S = 60.0
FETCH_TIMEOUT_S = 900.0
_USER, _PASSWORD = "AT_MOST_ONE_GIT_USER", "AT_MOST_ONE_GIT_PASSWORD"
_HELPER = f'!f() {{ test "$1" = get && echo "username=${_USER}" && echo "password=${_PASSWORD}"; }}; f'
_NO_SUCH_BRANCH = 2  # `git ls-remote --exit-code`
_POINTER = b"version https://git-lfs.github.com/spec/"  # begins what stands in the place of a file of Git LFS


@dataclass(frozen=True)
class Remote:
    """Where git asks. ``name`` is what it is given: the remote's name, or its address without what proves it."""

    name: str
    address: str = field(repr=False)  # as configured, with what proves it
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @property
    def shown(self) -> str:
        """The place, for a person."""
        return redact(self.address, self.secrets)

    @property
    def secrets(self) -> tuple[str, ...]:
        """A token may stand in either place."""
        return (self.password,) if self.password else (self.user,) if self.user else ()


@dataclass(frozen=True)
class Served:
    """What the application's path leads to: its commit, and what was changed in it by hand, in git's words.

    ``changes``: what shows that something else than this tool has deployed into the release.
    """

    commit: str
    release: str
    in_place: bool
    modified: list[str]
    changes: list[str] = field(default_factory=list)


def served(path: Path) -> Served:
    """What is at the path now; the origin is not asked. Raises OperatorError unless that is a checkout."""
    there = ["-C", str(path)]
    head = _git([*there, "rev-parse", "HEAD"], None, ASK_TIMEOUT_S)
    status = _git([*there, "status", "--porcelain", "-z", "--untracked-files=no"], None, ASK_TIMEOUT_S)
    for done in (head, status):
        if done.returncode:
            raise OperatorError(
                observed(
                    "AMO-4105",
                    "{path} cannot be read as a checkout: {said}.",
                    path=path,
                    said=_said(done, Remote("", "")),
                ),
                expected=say("the application's git checkout, or a link to one, that this account may read."),
                next_step=say("correct app_path, or the account that the tasks run as. Nothing was touched."),
            )
    in_place = not path.is_symlink()
    release = path if in_place else path.resolve()
    modified = [line for line, name in _modified(status.stdout) if not _is_of_the_build(release, name)]
    commit = head.stdout.strip()
    return Served(commit, str(release), in_place, modified, _changes(release, commit, in_place))


def _modified(status: str) -> Iterator[tuple[str, str]]:
    """Each line of ``git status``, with the file's name: NULs end the entries, so that no name is quoted."""
    entries = iter(filter(None, status.split("\0")))
    for entry in entries:
        moved = f"{next(entries, '')} -> " if "R" in entry[:2] or "C" in entry[:2] else ""  # from where comes after it
        yield f"{entry[:3]}{moved}{entry[3:]}", entry[3:]


def _is_of_the_build(release: Path, name: str) -> bool:
    """Whether the release's own build has changed the file, and nobody since the build was complete."""
    try:
        return (release / name).lstat().st_ctime <= (release / retention.MARKER).lstat().st_ctime
    except OSError:
        return False


def _changes(release: Path, commit: str, in_place: bool) -> list[str]:
    """What shows another way of deploying: `git reset --hard` and a build inside the path, which is a link."""
    found = list[str]()
    if not in_place and re.fullmatch("[0-9a-f]{40}", release.name) and commit != release.name:
        found.append(
            say(
                "{release} is the release of {of}, and its checkout is at {commit}",
                release=release,
                of=release.name[:12],
                commit=commit[:12],
            )
        )
    try:
        marker = json.loads((release / retention.MARKER).read_text(encoding="utf-8"))
        built = marker.get("build_id_sha256")
    except (OSError, ValueError, AttributeError):
        built = None  # an adopted checkout, or a release of an earlier version of this tool
    if built:
        build_id = release / ".next/BUILD_ID"
        now = hashlib.sha256(build_id.read_bytes()).hexdigest() if build_id.is_file() else None
        if now != built:
            values = {"release": release, "run_id": marker.get("run_id")}
            found.append(
                say("{release} was built again since run {run_id} had built it (.next/BUILD_ID)", **values)
                if now
                else say("{release} has lost its build since run {run_id} had built it (.next/BUILD_ID)", **values)
            )
    return found


def remote(checkout: Path, origin: str) -> Remote:
    """The remote of that name in the checkout, or the one at that address."""
    address = origin
    if not re.search(r"[/:]", origin):
        asked = _git(["-C", str(checkout), "ls-remote", "--get-url", origin], None, ASK_TIMEOUT_S)
        address = asked.stdout.strip() or origin
    parts = urlsplit(address) if re.match(r"https?://", address) else None
    if parts is None or "@" not in parts.netloc:
        return Remote(origin, address)
    userinfo, _, host = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    return Remote(urlunsplit(parts._replace(netloc=host)), address, unquote(user), unquote(password))


def newest(checkout: Path, origin: str, branch: str) -> str:
    """The commit that the branch is at over there. Raises OperatorError without an answer or such a branch."""
    source = remote(checkout, origin)
    command = ["-C", str(checkout), "ls-remote", "--exit-code", source.name, f"refs/heads/{branch}"]
    answer = _git(command, source, ASK_TIMEOUT_S)
    commit = commit_of(answer.stdout, branch)
    if answer.returncode == _NO_SUCH_BRANCH or (commit is None and not answer.returncode):
        raise OperatorError(
            observed("AMO-4106", "The origin {shown} has no branch {branch}.", shown=source.shown, branch=branch),
            expected=say("the branch whose newest commit is to be deployed."),
            next_step=say("push it, or name another one with app_branch, or one commit with app_commit."),
        )
    if answer.returncode or commit is None:
        raise _unreachable(source, answer)
    return commit


def commit_of(answer: str, branch: str) -> str | None:
    """The commit of that very branch in what ls-remote printed: to git the name is a pattern for the end of others."""
    lines = (line.partition("\t") for line in answer.splitlines())
    return next((commit for commit, _, name in lines if name == f"refs/heads/{branch}"), None)


def commits_since(release: Path, served: str) -> list[str]:
    """The commits of the release's checkout that the served one has not, a line each, newest first.

    None are known where there is no path between the two, as after a rewritten history.
    """
    log = ["-C", str(release), "log", "--oneline", "--no-decorate", f"{served}..HEAD"]
    return _git(log, None, ASK_TIMEOUT_S).stdout.splitlines()


def is_at(release: Path, commit: str) -> bool:
    """Whether the release is a checkout at that commit."""
    head = _git(["-C", str(release), "rev-parse", "--verify", "--quiet", "HEAD"], None, ASK_TIMEOUT_S)
    return (release / ".git").exists() and head.stdout.strip() == commit


def check_out(checkout: Path, origin: str, release: Path, commit: str) -> bool:
    """Let ``release`` be a checkout of the commit, with the checkout's origin as its own; whether that changed it.

    Goes on in a directory that an earlier attempt has left. Raises OperatorError when the origin does not give it.
    """
    with files.created_as(checkout):
        return _check_out(checkout, origin, release, commit)


def _check_out(checkout: Path, origin: str, release: Path, commit: str) -> bool:
    source = remote(checkout, origin)
    there = ["-C", str(release)]
    changed = not is_at(release, commit)
    if changed:
        for command in (
            ["init", "--quiet", str(release)],
            [*there, "config", "remote.origin.url", source.name if source.user else source.address],
            [*there, "config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"],
        ):
            _must(_git(command, None, ASK_TIMEOUT_S), release, source)
        fetch = [*there, "fetch", "--quiet", "--tags", "--force", "origin"]
        _must(_git(fetch, source, FETCH_TIMEOUT_S), release, source, unreachable=True)
        if _git([*there, "cat-file", "-e", f"{commit}^{{commit}}"], None, ASK_TIMEOUT_S).returncode:
            fetch = [*there, "fetch", "--quiet", "origin", commit]
            _must(_git(fetch, source, FETCH_TIMEOUT_S), release, source, unreachable=True)
    # Git LFS fetches its files while they are checked out: it asks the origin, too.
    take = [*there, "checkout", "--quiet", "--force", "--detach", commit]
    _must(_git(take, source, FETCH_TIMEOUT_S), release, source)
    if (release / ".gitmodules").exists():
        update = [*there, "submodule", "--quiet", "update", "--init", "--recursive", "--force"]
        _must(_git(update, source, FETCH_TIMEOUT_S), release, source, unreachable=True)
    if changed and source.user:
        _keep_address(release / ".git" / "config", source)
    _require_no_pointers(checkout, release)
    return changed


def _require_no_pointers(checkout: Path, release: Path) -> None:
    """Raise OperatorError where Git LFS has left a pointer in the place of a file, unless the checkout has them too.

    A host without git-lfs gets them without a word: pages would show a text where an image was.
    """
    listed = _git(["-C", str(release), "ls-files", "-z", "--", ":(attr:filter=lfs)"], None, ASK_TIMEOUT_S)
    names = [name for name in listed.stdout.split("\0") if name]
    pointers = [name for name in names if _is_pointer(release / name)]
    served = [_is_pointer(checkout / name) for name in names if (checkout / name).is_file()]
    if pointers and not (served and all(served)):
        raise OperatorError(
            observed(
                "AMO-4124",
                "{release} has pointers in the place of {count} files of Git LFS, such as {name}.",
                release=release,
                count=len(pointers),
                name=pointers[0],
            ),
            expected=say("the files themselves."),
            next_step=say(
                "install git-lfs on that host, run git lfs install there as this account, then rm -rf {release} and "
                "the same playbook again. Nothing that serves was touched.",
                release=release,
            ),
        )


def _is_pointer(file: Path) -> bool:
    try:
        with open(file, "rb") as content:
            return content.read(len(_POINTER)) == _POINTER
    except OSError:
        return False


@contextlib.contextmanager
def unpacked(checkout: Path, origin: str, commit: str, directory: str) -> Iterator[Path | None]:
    """One directory of a commit that is not checked out yet, below a temporary place that is removed afterwards.

    That commit alone, or everything where a server gives whole branches only. ``None`` when the origin gives neither.
    """
    source = remote(checkout, origin)
    with tempfile.TemporaryDirectory(prefix="at-most-one-") as place:
        there = ["-C", place]
        fetch = [*there, "fetch", "--quiet", source.name if source.user else source.address]
        take = [*there, "checkout", "--quiet", commit, "--", directory]

        def done(command: list[str], asked: Remote | None = None) -> bool:
            return _git(command, asked, FETCH_TIMEOUT_S).returncode == 0

        given = done(["init", "--quiet", place]) and (
            done([*fetch, "--depth=1", commit], source) or done([*fetch, "+refs/heads/*:refs/remotes/origin/*"], source)
        )
        yield Path(place) if given and done(take) else None


def _keep_address(config: Path, source: Remote) -> None:
    """The next deployment asks the origin of this release: it needs the whole address. No command line names it."""
    quoted = source.address.replace("\\", "\\\\").replace('"', '\\"')
    text = config.read_text(encoding="utf-8").replace(f"url = {source.name}\n", f'url = "{quoted}"\n')
    config.chmod(0o600)
    config.write_text(text, encoding="utf-8")


def _git(arguments: list[str], source: Remote | None, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run git; it never asks a person. A call that takes too long counts as failed."""
    environment = {**os.environ, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
    options: list[str] = []
    if source is not None and source.user:
        host = urlunsplit(urlsplit(source.name)._replace(path="", query="", fragment=""))
        # Only for this host, and no other helper: one that stores would keep the token in a file of its own.
        options = ["-c", "credential.helper=", "-c", f"credential.{host}.helper={_HELPER}"]
        environment |= {_USER: source.user, _PASSWORD: source.password}
    command = ["git", *options, *arguments]
    try:
        return subprocess.run(  # noqa: S603  (a fixed program, no shell)
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            # What it quotes may be of any encoding, and the host's own may be another one (LANG=ko_KR is EUC-KR).
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(
            command, 124, "", say("no answer within {timeout_s} s", timeout_s=f"{timeout_s:g}")
        )


def _must(done: subprocess.CompletedProcess[str], release: Path, source: Remote, unreachable: bool = False) -> None:
    if done.returncode == 0:
        return
    if unreachable:
        raise _unreachable(source, done)
    raise OperatorError(
        observed("AMO-4107", "git could not prepare {release}: {said}.", release=release, said=_said(done, source)),
        expected=say("a checkout of the wanted commit."),
        next_step=say(
            "correct what git says; a directory that is in the way may be removed, nothing that serves is in it."
        ),
    )


def _unreachable(source: Remote, done: subprocess.CompletedProcess[str]) -> OperatorError:
    return OperatorError(
        observed(
            "AMO-4108", "The origin {shown} cannot be asked: {said}.", shown=source.shown, said=_said(done, source)
        ),
        expected=say("an origin that answers this host, with the right to read."),
        next_step=say(
            "try it there: git ls-remote {shown}; correct app_origin, or the key or token it needs. "
            "Nothing was touched.",
            shown=source.shown,
        ),
    )


def _said(done: subprocess.CompletedProcess[str], source: Remote) -> str:
    lines = [line.strip() for line in redact(done.stderr, source.secrets).splitlines() if line.strip()]
    return " | ".join(lines[:3]).rstrip(".") or say("git ended with exit code {returncode}", returncode=done.returncode)
