"""A release that was built on one host, as an archive for the others: packed, unpacked, and proven to be the same.

The digest is the SHA-256 of the tar stream before it is compressed. Owner, group and what else differs between hosts is
left out of the stream, so that an unpacked release gives the digest that it was packed with.

What belongs to one host does not travel: the shared files, the assets of earlier builds, the marker, Next.js's cache.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from ..errors import OperatorError
from ..findings import observed, say
from ..system import files
from . import assets, next_build, retention

NODE_TIMEOUT_S = 30.0
_CACHE = ".next/cache"
BUILD_LOCK = ".at-most-one-build.lock"  # held, and named by its process, while the release is built
_INCOMING = ".incoming-"  # a release that is being unpacked is none yet
# Asked of Node itself, as packages with native code do. With the network, its report would look up host names.
_ASK_NODE = """
process.report.excludeNetwork = true;
const libc = process.report.getReport().header.glibcVersionRuntime ? "glibc" : "another libc";
process.stdout.write(`Node.js ${process.versions.node.split(".")[0]}, ${process.arch}, ${libc}`);
"""


@dataclass
class _Sink:
    """Where a tar stream goes: into its digest, and into a file where there is one."""

    file: IO[bytes] | None = None
    sha256: Any = field(default_factory=hashlib.sha256)

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self.file.write(data) if self.file else len(data)


def platform(environment_path: str) -> str:
    """What a release must have been built for to run here: Node.js by its major version, architecture, libc."""
    path = os.pathsep.join(one for one in (environment_path, os.environ.get("PATH", "")) if one)
    node = shutil.which("node", path=path)
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = [node or "node", "-e", _ASK_NODE]
        return subprocess.run(  # noqa: S603 (no shell; found by name)
            command, capture_output=True, text=True, timeout=NODE_TIMEOUT_S, check=True
        ).stdout
    raise OperatorError(
        observed("AMO-4116", "{node} does not answer on this host.", node=node or "node"),
        expected=say("the Node.js that runs the application, in app_environment_path or in PATH."),
        next_step=say("set app_environment_path of this host to the directory of its node."),
    )


def marker(release: Path) -> dict[str, Any]:
    """What was written into the release when it was finished; empty before that."""
    try:
        found = json.loads((release / retention.MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_marker(release: Path, content: dict[str, Any]) -> None:
    files.write(release / retention.MARKER, json.dumps(content, indent=4, sort_keys=True) + "\n", 0o644)


def digest(release: Path, shared: Collection[str]) -> str:
    """The digest of the release as it lies there."""
    return _write(release, shared, _Sink())


def pack(release: Path, archive: Path, shared: Collection[str]) -> str:
    """Write the archive, readable by its owner only, and return its digest."""
    archive.unlink(missing_ok=True)
    descriptor = os.open(archive, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file, gzip.GzipFile("", "wb", 1, file, mtime=0) as compressed:
        return _write(release, shared, _Sink(cast("IO[bytes]", compressed)))


def unpack(archive: Path, release: Path, live: Path) -> None:
    """Let ``release`` be what the archive holds, and remove the archive. What was there goes, unless it serves.

    ``live`` is the application's path.
    """
    if release.exists() and release.resolve() in {live.resolve(), *retention.worked_in(release.parent)}:
        raise OperatorError(
            observed(
                "AMO-4117",
                "{release} serves, or a process works in it: it cannot be replaced by another build.",
                release=release,
            ),
            expected=say("a release that nothing runs from."),
            next_step=say("deploy a commit that this host does not serve yet (git commit --allow-empty makes one)."),
        )
    incoming = release.with_name(_INCOMING + release.name)
    shutil.rmtree(incoming, ignore_errors=True)
    try:
        with files.created_as(live):
            incoming.mkdir(parents=True)
        with tarfile.open(archive, "r:gz") as packed:
            packed.extraction_filter = getattr(tarfile, "tar_filter", lambda member, _: member)
            packed.extractall(incoming)  # noqa: S202 (packed by this file; the filter keeps all of it below the directory)
        if release.exists():
            retention.remove(release.parent, [release])
        incoming.rename(release)
    except (tarfile.TarError, EOFError, zlib.error) as broken:
        raise OperatorError(
            observed("AMO-4118", "{archive} cannot be unpacked: {broken}.", archive=archive, broken=broken),
            expected=say("the archive that the building host has packed."),
            next_step=say("run the same command again; nothing links to this release."),
        ) from None
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
        archive.unlink(missing_ok=True)


def require(release: Path, sha256: str, shared: Collection[str]) -> None:
    """Raise OperatorError unless the release is what was packed."""
    seen = digest(release, shared)
    if seen != sha256:
        raise OperatorError(
            observed("AMO-4119", "{release} has the digest {seen} after unpacking.", release=release, seen=seen[:12]),
            expected=say("{sha256}, with which it was packed on the host that built it.", sha256=sha256[:12]),
            next_step=say("look at that disk, then run the same command again; nothing links to this release."),
        )


def _write(release: Path, shared: Collection[str], sink: _Sink) -> str:
    with tarfile.open(fileobj=cast("IO[bytes]", sink), mode="w|", format=tarfile.PAX_FORMAT) as stream:
        for name in _travels(release, _of_this_host(release, shared)):
            path = release / name
            member = stream.gettarinfo(path, name)
            if member is None:  # a socket
                continue
            if member.islnk():
                member.type, member.linkname, member.size = tarfile.REGTYPE, "", path.stat().st_size
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mode &= 0o755
            member.mtime = int(member.mtime) if member.isreg() else 0  # of a file it is in the answer's ETag
            if member.isreg():
                with path.open("rb") as content:
                    stream.addfile(member, content)
            else:
                stream.addfile(member)
    return str(sink.sha256.hexdigest())


def _travels(release: Path, left_out: Collection[str], below: str = "") -> Iterator[str]:
    """The paths in the release that travel, each directory before what is in it."""
    for entry in sorted(os.scandir(release / below), key=lambda one: one.name):
        name = f"{below}{entry.name}"
        if name not in left_out:
            yield name
            if entry.is_dir(follow_symlinks=False):
                yield from _travels(release, left_out, f"{name}/")


def _of_this_host(release: Path, shared: Collection[str]) -> set[str]:
    """What does not travel; of .env files also those that nobody named and git does not have."""
    command = ["git", "-C", str(release), "ls-files", "-z", "--", ".env*"]
    done = subprocess.run(  # noqa: S603 (a fixed program, no shell)
        command, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    tracked = done.stdout.split("\0")
    secret = {path.name for path in release.glob(".env*")} - set(tracked)
    static, listed = next_build.STATIC, assets.listed(release)
    carried = {f"{static}/{name}" for name in (*listed, *_carried_alone(release / static, listed))}
    return {retention.MARKER, BUILD_LOCK, assets.LIST, _CACHE, *shared, *secret, *carried}


def _carried_alone(static: Path, carried: Collection[str]) -> Iterator[str]:
    """The directories that hold carried assets alone: on another host there may be those of other builds."""
    for directory in {parent for name in carried for parent in PurePosixPath(name).parents if parent.name}:
        found = (path for path in (static / directory).rglob("*") if path.is_file())
        if all(path.relative_to(static).as_posix() in carried for path in found):
            yield directory.as_posix()
