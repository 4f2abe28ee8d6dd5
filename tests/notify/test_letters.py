"""Letters over a real SMTP connection: what goes over TLS, and what never goes."""

from __future__ import annotations

import email
from email.message import EmailMessage
from email.policy import default

import pytest
from at_most_one.notify import letters, messages
from at_most_one.notify.letters import MailServer, letter, post
from hypothesis import given
from hypothesis import strategies as st

from tests.notify.post_office import Office, post_office
from tests.support.certificates import Signed, signed

SECRET = "hunter2-of-the-vault"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    return signed(tmp_path_factory.mktemp("tls"), "office", "127.0.0.1")


def message() -> EmailMessage:
    return letter("배포 완료: staging", "정리한 행: 20", "at-most-one", ["Duty <duty@example.org>", "b@example.org"])


def server(office: Office, secure: str, user: str = "deployer") -> MailServer:
    return MailServer("127.0.0.1", office.port, secure, user, SECRET if user else "")


@pytest.mark.parametrize("secure", ["starttls", "always"])
def test_the_account_is_used_over_tls_alone(certificate: Signed, secure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.root))
    with post_office(certificate, from_the_first_byte=secure == "always") as office:
        assert post(server(office, secure), message(), 10) is None
    (sent,) = office.letters
    assert email.message_from_bytes(sent, policy=default)["Subject"] == "배포 완료: staging"
    assert {"tls AUTH", "tls MAIL", "tls DATA"} <= set(office.commands)
    assert not {"plain AUTH", "plain MAIL", "plain DATA"} & set(office.commands)


@pytest.mark.parametrize("secure", ["starttls", "always"])
def test_a_certificate_that_nobody_vouches_for_gets_no_password(certificate: Signed, secure: str) -> None:
    with post_office(certificate, from_the_first_byte=secure == "always") as office:
        said = post(server(office, secure), message(), 10)
    assert said is not None
    assert said.startswith("the certificate of 127.0.0.1 is not trusted")
    assert "tls AUTH" not in office.commands
    assert not office.letters


def test_a_server_that_offers_no_tls_gets_no_password() -> None:
    with post_office() as office:
        said = post(server(office, "starttls"), message(), 10)
    assert said is not None
    assert "offers no STARTTLS" in said
    assert not {"plain AUTH", "plain MAIL"} & set(office.commands)


@pytest.mark.parametrize("secure", ["never", "try"])
def test_credentials_are_refused_by_name_before_a_connection(certificate: Signed, secure: str) -> None:
    with post_office(certificate) as office:
        said = post(server(office, secure), message(), 10)
    assert said is not None
    assert f"notify_email_secure is {secure}" in said
    assert "credentials never go over a connection that may be plain" in said
    assert SECRET not in said
    assert office.connections == 0


@pytest.mark.parametrize("with_tls", [True, False])
def test_without_an_account_try_takes_what_is_offered(certificate: Signed, with_tls: bool) -> None:
    with post_office(certificate if with_tls else None) as office:
        assert post(server(office, "try", user=""), message(), 10) is None
    assert len(office.letters) == 1
    assert ("tls MAIL" if with_tls else "plain MAIL") in office.commands


def test_nobody_listens() -> None:
    with post_office() as office:
        gone = server(office, "starttls")
    assert post(gone, message(), 10) == "no answer (ConnectionRefusedError)"
    assert SECRET not in repr(gone)
    assert letters.refusal(gone) is None


def test_a_password_that_a_mail_server_cannot_be_told_is_no_silence(
    certificate: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SMTP's logins are ASCII. Nobody waits for it, and it is not said that the server does not answer."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.root))
    with post_office(certificate) as office:
        account = MailServer("127.0.0.1", office.port, "starttls", "deployer", "비밀번호")
        mail = messages.Mail(account, "at-most-one", ("a@example.org",))
        (outcome,) = messages.send(messages.Notice("stop", "Stopped"), [mail], within_s=10)
    assert outcome.problem == "it cannot be sent (UnicodeEncodeError)"
    assert not office.letters


@given(st.text(max_size=60), st.text(max_size=200))
def test_a_title_ends_no_header(title: str, text: str) -> None:
    title, text = (part.encode("utf-8", "replace").decode() for part in (title, text))
    read = email.message_from_bytes(letter(title, text, "at-most-one", ["a@example.org"]).as_bytes(), policy=default)
    assert read["To"] == "a@example.org"
    assert set(read) == {
        *("Subject", "From", "To", "Date", "Message-ID", "Content-Type", "Content-Transfer-Encoding", "MIME-Version")
    }
