"""The migrations of a release as files: their names, their checksums as Prisma makes them, and the text of one."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import OperatorError
from ..findings import observed, say


@dataclass(frozen=True)
class Migration:
    """A migration of a release: its directory's name and the SHA-256 of its migration.sql, Prisma's checksum.

    ``other_sha256`` is that of the same text with the other line endings, LF or CRLF: Prisma takes it for unchanged.
    """

    name: str
    sha256: str
    other_sha256: str | None = None

    def has_checksum(self, recorded: str) -> bool:
        """Whether Prisma takes the file for the one that was recorded with this checksum."""
        return recorded in (self.sha256, self.other_sha256)


def migration_of(name: str, content: bytes) -> Migration:
    """The migration whose migration.sql has this content."""
    other = content.replace(b"\r\n", b"\n") if b"\r\n" in content else content.replace(b"\n", b"\r\n")
    return Migration(name, hashlib.sha256(content).hexdigest(), hashlib.sha256(other).hexdigest())


def read_migrations(release: str | Path, *, may_be_unbuilt: bool = False) -> tuple[Migration, ...] | None:
    """The migrations of a release in Prisma's order. Raises OperatorError unless each directory holds its file.

    ``may_be_unbuilt``: in check mode the release may not be there yet; its migrations are then not known (``None``).
    """
    if may_be_unbuilt and not Path(release).exists():
        return None
    directory = Path(release) / "prisma" / "migrations"
    directories = sorted(found for found in directory.glob("*") if found.is_dir())
    if not directories:
        raise OperatorError(
            observed("AMO-3708", "{directory} holds no migration.", directory=directory),
            expected=say("one directory with a migration.sql for each migration."),
            next_step=say("check release_path: it must be the directory that holds prisma/ and node_modules/."),
        )
    without = [found.name for found in directories if not (found / "migration.sql").is_file()]
    if without:
        raise OperatorError(
            observed(
                "AMO-3709",
                "{directory} has no migration.sql in {without}.",
                directory=directory,
                without=", ".join(without),
            ),
            expected=say("a migration.sql in each directory: `prisma migrate deploy` stops with P3015 otherwise."),
            next_step=say("add the file to the commit, or remove the directory from it; nothing was built."),
            cause="migration_unreadable",
        )
    _require_provider(directory / "migration_lock.toml")
    return tuple(migration_of(found.name, (found / "migration.sql").read_bytes()) for found in directories)


def _require_provider(lock: Path) -> None:
    """Raise OperatorError when Prisma's lock file names another database than PostgreSQL."""
    text = lock.read_text(errors="replace") if lock.is_file() else ""
    named = re.search(r"""^\s*provider\s*=\s*["']([^"']*)["']""", text, re.MULTILINE)
    if named and named.group(1) not in ("postgresql", "postgres"):
        raise OperatorError(
            observed("AMO-3710", "{lock} names the provider {provider}.", lock=lock, provider=named.group(1)),
            expected=say("postgresql: `prisma migrate deploy` stops with P3019 otherwise."),
            next_step=say("put back the file of the commit that the database was deployed with; nothing was built."),
            cause="migration_unreadable",
        )


def read_script(release: str | Path, name: str) -> str:
    """The text of a migration of the release; see :func:`decode`."""
    return decode((Path(release) / "prisma" / "migrations" / name / "migration.sql").read_bytes(), name)


def decode(content: bytes, name: str) -> str:
    """The text of a migration.sql. Raises OperatorError unless it is UTF-8 without a byte order mark, as Prisma wants.

    Prisma hands the mark on to PostgreSQL, which takes it for a syntax error.
    """
    fault = ""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        fault = "is UTF-16"
    elif content.startswith(b"\xef\xbb\xbf"):
        fault = say("begins with a byte order mark")
    elif b"\0" in content:
        fault = say("has NUL characters in it")
    else:
        try:
            return content.decode()
        except UnicodeDecodeError:
            fault = say("is not UTF-8")
    raise OperatorError(
        observed("AMO-3711", "migration.sql of {name} {fault}.", name=name, fault=fault),
        expected=say("UTF-8 without a byte order mark, the only encoding that Prisma and PostgreSQL read there."),
        next_step=say("save the file as plain UTF-8, commit it, and deploy that commit; nothing was built."),
        cause="migration_unreadable",
    )
