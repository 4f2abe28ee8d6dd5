"""TLS to a real server: who may be believed, what is said of who may not, and that every program gets the same."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from at_most_one.errors import OperatorError
from at_most_one.postgres import client_programs
from at_most_one.postgres.connection import Login, connect
from at_most_one.preflight import server_checks

from tests.support.certificates import Signed, signed
from tests.support.postgres import Server, as_user


@pytest.fixture
def certificate(server: Server, tmp_path: Path) -> Iterator[Signed]:
    """The test server speaks TLS with it until the test is over."""
    made = signed(tmp_path, "server", "127.0.0.1")
    _prefix, user = as_user(server.binaries)
    placed = Signed(made.root, server.data / "tls.crt", server.data / "tls.key")
    for source, target in ((made.certificate, placed.certificate), (made.key, placed.key)):
        shutil.copyfile(source, target)
        target.chmod(0o600)
        if user:
            os.chown(target, user.pw_uid, user.pw_gid)
    server.run(
        "ALTER SYSTEM SET ssl_cert_file = 'tls.crt'",
        "ALTER SYSTEM SET ssl_key_file = 'tls.key'",
        "ALTER SYSTEM SET ssl = on",
        "SELECT pg_reload_conf()",
    )
    _await_tls(server.login, True)
    yield placed
    server.run(*(f"ALTER SYSTEM RESET {name}" for name in ("ssl", "ssl_cert_file", "ssl_key_file")))
    server.run("SELECT pg_reload_conf()")
    _await_tls(server.login, False)


def _speaks_tls(login: Login) -> bool:
    try:
        with connect(replace(login, sslmode="require")):
            return True
    except OperatorError:
        return False


def _await_tls(login: Login, wanted: bool) -> None:
    """The server reloads its settings a moment after it was asked to."""
    deadline = time.monotonic() + 30
    while _speaks_tls(login) != wanted:
        assert time.monotonic() < deadline


def _is_encrypted(login: Login) -> bool:
    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT ssl FROM pg_catalog.pg_stat_ssl WHERE pid = pg_catalog.pg_backend_pid()")
        return cursor.fetchone() == (True,)


def test_the_right_authority_is_believed_by_all(server: Server, certificate: Signed, tmp_path: Path) -> None:
    login = replace(server.login, sslmode="verify-full", sslrootcert=str(certificate.root))
    assert _is_encrypted(login)
    with connect(login) as connection:  # it opens a second connection like the first
        assert server_checks._pooled(connection) is False
    psql = client_programs.find("psql", str(server.binaries))
    with client_programs.access(login) as given:
        shown = client_programs.run(
            [psql, "-XAtc", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"], given, [], "-"
        )
    assert shown.strip() == "t"


@pytest.mark.parametrize(
    ("host", "root", "said"),
    [
        ("127.0.0.1", "another", "certificate verify failed"),
        ("127.0.0.1", "missing", "does not exist"),
        ("localhost", "right", "does not match host name"),
    ],
)
def test_anybody_else_is_refused_in_words(
    server: Server, certificate: Signed, tmp_path: Path, host: str, root: str, said: str
) -> None:
    roots = {"another": signed(tmp_path / "other", "server").root, "right": certificate.root}
    path = str(roots.get(root, tmp_path / "none.crt"))
    login = replace(server.login, host=host, sslmode="verify-full", sslrootcert=path)
    with pytest.raises(OperatorError) as refused, connect(login):
        pass
    assert said in refused.value.seen
    assert "database_sslmode is verify-full" in refused.value.seen
    assert path in refused.value.expected
    assert "database_sslrootcert" in refused.value.next_step
    assert f"openssl s_client -starttls postgres -showcerts -connect {host}:{login.port}" in refused.value.next_step
    with client_programs.access(login) as given, pytest.raises(OperatorError, match=said):
        client_programs.run([client_programs.find("psql", str(server.binaries)), "-c", "SELECT 1"], given, [], "-")


def test_a_server_without_tls_is_refused_in_words(server: Server, tmp_path: Path) -> None:
    root = str(signed(tmp_path, "server").root)
    with (
        pytest.raises(OperatorError, match="does not support SSL") as refused,
        connect(replace(server.login, sslmode="verify-full", sslrootcert=root)),
    ):
        pass
    assert "database_sslrootcert" in refused.value.next_step


def test_a_certificate_of_our_own_is_shown(server: Server, certificate: Signed, tmp_path: Path) -> None:
    mine = signed(tmp_path / "mine", "deployer")
    tls: dict[str, Any] = {"sslmode": "verify-full", "sslrootcert": str(certificate.root)}
    login = replace(server.login, **tls, sslcert=str(mine.certificate), sslkey=str(mine.key))
    assert _is_encrypted(login)
    mine.key.chmod(0o644)
    with pytest.raises(OperatorError, match="private key file") as refused, connect(login):
        pass
    assert "No trusted connection" in refused.value.seen


def test_prisma_is_given_its_own_words() -> None:
    login = Login("db.example", 5432, "d", "u", "p", "verify-full", "/etc/root.crt")
    assert parse_qs(urlsplit(login.url()).query) == {
        "sslmode": ["require"],
        "sslaccept": ["strict"],
        "sslcert": ["/etc/root.crt"],
    }
    assert "sslcert" not in replace(login, sslrootcert="system").url()


@pytest.mark.parametrize(
    ("host", "sslmode", "weak"),
    [
        ("db.example", "require", True),
        ("db.example", "verify-ca", True),
        ("10.0.0.5", "prefer", True),
        ("db.example", "verify-full", False),
        ("localhost", "prefer", False),
        ("127.0.0.1", "disable", False),
        ("::1", "prefer", False),
        ("/var/run/postgresql", "prefer", False),
    ],
)
def test_less_than_a_proof_is_a_finding_beyond_this_machine(host: str, sslmode: str, weak: bool) -> None:
    found = server_checks.weak_tls(Login(host, 5432, "d", "u", "hunter2", sslmode))
    assert (found is not None) == weak
    if found:
        assert f"database_sslmode is {sslmode}" in found.seen
        assert "hunter2" not in str(found)
