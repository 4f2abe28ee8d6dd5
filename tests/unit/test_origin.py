"""The origin: what a real git over real HTTP sees, and what the process list sees of it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from at_most_one.errors import OperatorError
from at_most_one.release import git_origin

from tests.support.command_lines import watched
from tests.support.guarded_git import guarded
from tests.support.login import umask

TOKEN = "planted/token+with@signs"


def git(*arguments: str | Path) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    return subprocess.run(
        ["git", *identity, *map(str, arguments)], check=True, capture_output=True, text=True
    ).stdout.strip()


@dataclass(frozen=True)
class Place:
    address: str
    commit: str
    checkout: Path


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """An origin over HTTP that wants a token, and a checkout whose remote has it in its address."""
    work, bare, checkout = tmp_path / "work", tmp_path / "served/aedpics.git", tmp_path / "checkout"
    git("init", "-q", "-b", "main", work)
    (work / "file").write_text("one\n")
    git("-C", work, "add", ".")
    git("-C", work, "commit", "-q", "-m", "one")
    git("clone", "-q", "--bare", work, bare)
    with guarded(bare, TOKEN) as address:
        git("init", "-q", checkout)
        git("-C", checkout, "remote", "add", "origin", address)
        yield Place(address, git("-C", work, "rev-parse", "HEAD"), checkout)


@pytest.mark.parametrize("by_name", [True, False])
def test_the_token_is_in_no_command_line(place: Place, tmp_path: Path, by_name: bool) -> None:
    release, given = tmp_path / "release", "origin" if by_name else place.address
    with watched() as seen:
        assert git_origin.newest(place.checkout, given, "main") == place.commit
        assert git_origin.check_out(place.checkout, given, release, place.commit)

    assert "git-remote-http" in seen.text, "it looked at the right time"
    assert "planted" not in seen.text
    assert (release / "file").read_text() == "one\n"
    assert not git_origin.check_out(place.checkout, given, release, place.commit)
    assert git_origin.newest(release, "origin", "main") == place.commit, "the release itself can ask again"
    assert (release / ".git/config").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_a_checkout_is_as_open_as_what_serves_whatever_the_umask(place: Place, tmp_path: Path, mask: int) -> None:
    """A web server reads its assets, a unit may have an account of its own; and nobody else may change it."""
    release = tmp_path / "release"
    with umask(mask):
        git_origin.check_out(place.checkout, place.address, release, place.commit)
    assert [path.stat().st_mode & 0o777 for path in (release, release / "file")] == [0o755, 0o644]
    assert (release / ".git/config").stat().st_mode & 0o777 == 0o600, "it has the token"


def test_git_itself_would_show_it(place: Place) -> None:
    """What this is for, and that the watch finds what there is to find."""
    with watched() as seen:
        git("-C", place.checkout, "ls-remote", "origin")
    assert "planted" in seen.text


REFUSED = {
    "nobody there": ("http://deploy:planted@127.0.0.1:1/a.git", "main", "cannot be asked"),
    "no such place": ("/nowhere/a.git", "main", "cannot be asked"),
    "a wrong token": ("{address}", "main", "cannot be asked"),
    "no such branch": ("origin", "other", "has no branch other"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_says_where_it_asked_and_never_with_what(place: Place, case: str) -> None:
    given, branch, words = REFUSED[case]
    with pytest.raises(OperatorError, match=words) as stop:
        git_origin.newest(place.checkout, given.format(address=place.address.replace("token", "another")), branch)
    assert "planted" not in str(stop.value)


def test_goes_on_where_an_attempt_has_ended_and_brings_one_commit_of_no_branch(tmp_path: Path) -> None:
    work, release = tmp_path / "work", tmp_path / "release"
    git("init", "-q", "-b", "main", work)
    (work / "file").write_text("one\n")
    git("-C", work, "add", ".")
    git("-C", work, "commit", "-q", "-m", "one")
    first = git("-C", work, "rev-parse", "HEAD")
    git("-C", work, "commit", "-q", "--amend", "-m", "two")  # the first one now is on no branch
    git("-C", work, "config", "uploadpack.allowAnySHA1InWant", "true")
    git("init", "-q", release)
    (release / "file").write_text("half\n")

    assert git_origin.check_out(work, str(work), release, first)
    assert (release / "file").read_text() == "one\n"
    assert git_origin.is_at(release, first)


def test_says_what_a_path_leads_to_and_what_was_changed_by_hand(tmp_path: Path) -> None:
    work, link = tmp_path / "work", tmp_path / "link"
    git("init", "-q", "-b", "main", work)
    for name in ("file", "other"):
        (work / name).write_text("one\n")
    git("-C", work, "add", ".")
    git("-C", work, "commit", "-q", "-m", "one")
    commit = git("-C", work, "rev-parse", "HEAD")
    link.symlink_to(work)
    (work / ".env").write_text("not git's\n")

    assert git_origin.served(work) == git_origin.Served(commit, str(work), in_place=True, modified=[])
    assert git_origin.served(link) == git_origin.Served(commit, str(work), in_place=False, modified=[])

    (work / "file").write_text("two\n")
    git("-C", work, "rm", "-q", "other")
    assert git_origin.served(link).modified == [" M file", "D  other"]


def release_of(tmp_path: Path) -> tuple[Path, Path, str]:
    """An application's path that leads to the release of its commit, as the phase prepare leaves one."""
    work = tmp_path / "work"
    git("init", "-q", "-b", "main", work)
    for name in ("file", "next-env.d.ts"):
        (work / name).write_text("one\n")
    git("-C", work, "add", ".")
    git("-C", work, "commit", "-q", "-m", "one")
    commit = git("-C", work, "rev-parse", "HEAD")
    release, link = tmp_path / "app.releases" / commit, tmp_path / "app"
    git("clone", "-q", work, release)
    link.symlink_to(release)
    (release / ".next").mkdir()
    (release / ".next/BUILD_ID").write_text("first")
    (release / "next-env.d.ts").write_text("as the build writes it\n")
    built = hashlib.sha256(b"first").hexdigest()
    (release / ".at-most-one.json").write_text(json.dumps({"run_id": "run-1", "build_id_sha256": built}))
    return link, release, commit


def test_a_release_as_it_was_built_has_no_changes(tmp_path: Path) -> None:
    """Not even tracked files that the build itself writes; one that is changed later is."""
    link, release, commit = release_of(tmp_path)
    assert git_origin.served(link) == git_origin.Served(commit, str(release), in_place=False, modified=[], changes=[])
    (release / "next-env.d.ts").write_text("as somebody writes it\n")
    assert git_origin.served(link).modified == [" M next-env.d.ts"]


def test_what_another_way_of_deploying_does_to_a_release_is_named(tmp_path: Path) -> None:
    """`git fetch && git reset --hard && npm run build` inside the path."""
    link, release, commit = release_of(tmp_path)
    git("-C", tmp_path / "work", "commit", "-q", "--allow-empty", "-m", "two")
    git("-C", link, "fetch", "-q")
    git("-C", link, "reset", "-q", "--hard", "origin/main")
    moved = git_origin.served(link)
    assert moved.commit == git("-C", tmp_path / "work", "rev-parse", "HEAD") != commit
    assert moved.changes == [
        f"{release} is the release of {commit[:12]}, and its checkout is at {moved.commit[:12]}",
    ]

    (release / ".next/BUILD_ID").write_text("second")
    assert git_origin.served(link).changes[1:] == [
        f"{release} was built again since run run-1 had built it (.next/BUILD_ID)"
    ]
    (release / ".next/BUILD_ID").unlink()
    assert "has lost its build" in git_origin.served(link).changes[1]
    (release / ".at-most-one.json").unlink()  # an adopted checkout has none
    assert git_origin.served(link).changes == moved.changes


@pytest.mark.parametrize("there", [False, True])
def test_a_path_that_is_no_checkout_is_refused(tmp_path: Path, there: bool) -> None:
    path = tmp_path / "app"
    if there:
        path.mkdir()
    with pytest.raises(OperatorError, match=r"app cannot be read as a checkout: .*Expected: .*correct app_path"):
        git_origin.served(path)


def test_a_commit_is_read_without_being_checked_out(place: Place, tmp_path: Path) -> None:
    """Asked for by its hash; the temporary place is gone afterwards, and the token is in no command line."""
    work = tmp_path / "work"
    (work / "prisma").mkdir()
    (work / "prisma/one.sql").write_text("SELECT 1")
    git("-C", work, "add", ".")
    git("-C", work, "commit", "-q", "-m", "two")
    git("-C", work, "push", "-q", tmp_path / "served/aedpics.git", "main")
    git("-C", tmp_path / "served/aedpics.git", "update-server-info")
    commit = git("-C", work, "rev-parse", "HEAD")
    with watched() as seen, git_origin.unpacked(place.checkout, "origin", commit, "prisma") as found:
        assert found is not None
        assert (found / "prisma/one.sql").read_text() == "SELECT 1"
        assert not (found / "file").exists()
    assert not found.exists()
    assert "planted" not in seen.text
    assert not (place.checkout / "file").exists()
    with git_origin.unpacked(place.checkout, "origin", "0" * 40, "prisma") as nothing:
        assert nothing is None


def test_what_is_written_in_another_encoding_stops_nothing(tmp_path: Path) -> None:
    """A commit's words in EUC-KR, as other programs than git write them: git hands them on as they are."""
    work = tmp_path / "work"
    git("init", "-q", "-b", "main", work)
    for message in ("one", "NAME 2"):
        git("-C", work, "commit", "-q", "--allow-empty", "-m", message)
    first = git("-C", work, "rev-parse", "HEAD~")
    written = git("-C", work, "cat-file", "commit", "HEAD").encode().replace(b"NAME", "배포".encode("euc-kr")) + b"\n"
    store = ["git", "-C", str(work), "hash-object", "-w", "-t", "commit", "--stdin"]
    commit = subprocess.run(store, input=written, check=True, capture_output=True).stdout.decode().strip()
    git("-C", work, "update-ref", "HEAD", commit)
    (since,) = git_origin.commits_since(work, first)
    assert since.endswith(" 2")


def test_a_file_of_any_name_is_known_as_the_builds_own(tmp_path: Path) -> None:
    """git quotes a name with a blank, and one that is not ASCII: no such file would be found."""
    link, release, _ = release_of(tmp_path)
    names = ["점검 목록.json", "a b.json"]
    for name in names:
        (release / name).write_text("one\n")
    git("-C", release, "add", "--", *names)
    git("-C", release, "commit", "-q", "-m", "two")
    for name in names:
        (release / name).write_text("as the build writes it\n")
    marker = release / ".at-most-one.json"
    marker.write_text(marker.read_text())  # the build ends after what it writes
    assert git_origin.served(link).modified == []
    (release / names[0]).write_text("as somebody writes it\n")
    git("-C", release, "mv", names[1], "c d.json")
    assert git_origin.served(link).modified == ["RM a b.json -> c d.json", f" M {names[0]}"]


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"


def test_a_pointer_in_the_place_of_a_file_is_no_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without git-lfs, where git says nothing of what is missing."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    work, live = tmp_path / "work", tmp_path / "live"
    git("init", "-q", "-b", "main", work)
    (work / ".gitattributes").write_text("*.png filter=lfs diff=lfs merge=lfs -text\n")
    (work / "a b.png").write_text(POINTER)
    git("-C", work, "add", ".")
    git("-C", work, "commit", "-q", "-m", "one")
    commit = git("-C", work, "rev-parse", "HEAD")
    for name in ("new to it", "with the file"):
        with pytest.raises(OperatorError, match=r"pointers in the place of 1 files of Git LFS, such as a b\.png\."):
            git_origin.check_out(live, str(work), tmp_path / name, commit)
        live.mkdir(exist_ok=True)
        (live / "a b.png").write_text("an image")
    (live / "a b.png").write_text(POINTER)  # what serves has never had it, either
    assert git_origin.check_out(live, str(work), tmp_path / "as before", commit)
    assert not git_origin.check_out(live, str(work), tmp_path / "as before", commit)


def test_what_git_runs_while_it_checks_out_may_ask_the_origin(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the filter of Git LFS does, for the files themselves."""
    asks, settings = tmp_path / "asks", tmp_path / "gitconfig"
    host = urlsplit(place.address).netloc.rpartition("@")[2]
    asks.write_text(
        "#!/bin/sh\ncat > /dev/null\n"
        f"printf 'protocol=http\\nhost={host}\\n\\n' | git credential fill | grep '^password='\n"
    )
    asks.chmod(0o755)
    settings.write_text(f'[filter "asks"]\n\tclean = cat\n\tsmudge = {asks}\n\trequired = true\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    work, bare = tmp_path / "work", tmp_path / "served/aedpics.git"
    (work / ".gitattributes").write_text("large filter=asks\n")
    (work / "large").write_text("a pointer\n")
    git("-C", work, "add", ".")
    git("-C", work, "commit", "-q", "-m", "two")
    git("-C", work, "push", "-q", bare, "main")
    git("-C", bare, "update-server-info")
    release = tmp_path / "release"

    assert git_origin.check_out(place.checkout, "origin", release, git("-C", work, "rev-parse", "HEAD"))

    assert (release / "large").read_text() == f"password={TOKEN}\n"
