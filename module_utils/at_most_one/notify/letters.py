"""A message as a letter, handed to a mail server whose certificate is checked before it learns a password."""

from __future__ import annotations

import contextlib
import smtplib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid, parseaddr

from ..findings import say


@dataclass(frozen=True)
class MailServer:
    """Where letters are handed over, and how. ``secure``: starttls, always (TLS from the first byte), try or never."""

    host: str
    port: int
    secure: str
    user: str = ""
    password: str = field(default="", repr=False)


def refusal(server: MailServer) -> str | None:
    """Why no connection is made; None when one may be."""
    if (server.user or server.password) and server.secure not in ("starttls", "always"):
        return say(
            "notify_email_secure is {secure}, and notify_email_user is given: credentials never go over a connection "
            "that may be plain. Set notify_email_secure to starttls or always",
            secure=server.secure,
        )
    return None


def letter(title: str, text: str, sender: str, recipients: Sequence[str]) -> EmailMessage:
    """The letter. What a title holds of line breaks ends no header."""
    message = EmailMessage(policy=SMTP)
    message["Subject"] = " ".join(title.split())
    message["From"] = sender
    message["To"] = ", ".join(recipients)
    message["Date"] = formatdate(localtime=True)
    message["Message-ID"] = make_msgid(domain="at-most-one")
    message.set_content(text)
    return message


def post(server: MailServer, message: EmailMessage, timeout_s: float) -> str | None:
    """Hand the letter over; what went wrong, as a phrase, or None.

    The certificates that are trusted are those of the machine, or of the file that SSL_CERT_FILE names.
    """
    refused = refusal(server)
    if refused:
        return refused
    trusted = ssl.create_default_context()
    if server.secure == "try":  # an unknown certificate is no worse than none, and no password follows
        trusted.check_hostname, trusted.verify_mode = False, ssl.CERT_NONE
    try:
        with contextlib.ExitStack() as stack:
            client: smtplib.SMTP = (
                smtplib.SMTP_SSL(server.host, server.port, timeout=timeout_s, context=trusted)
                if server.secure == "always"
                else smtplib.SMTP(server.host, server.port, timeout=timeout_s)
            )
            stack.enter_context(client)
            client.ehlo_or_helo_if_needed()
            if server.secure == "starttls" or (server.secure == "try" and client.has_extn("starttls")):
                client.starttls(context=trusted)
            if server.user:
                client.login(server.user, server.password)
            lost = client.send_message(
                message,
                parseaddr(str(message["From"]))[1],
                [parseaddr(one)[1] for one in str(message["To"]).split(",")],
            )
            return say("{count} recipients were refused", count=len(lost)) if lost else None
    except ssl.SSLCertVerificationError as failure:
        return say("the certificate of {host} is not trusted ({why})", host=server.host, why=failure.verify_message)
    except ssl.SSLError:
        return say(
            "{host}:{port} does not speak TLS as notify_email_secure={secure} asks for",
            **{name: getattr(server, name) for name in ("host", "port", "secure")},
        )
    except smtplib.SMTPNotSupportedError:
        return say(
            "{host}:{port} offers no STARTTLS, or no login; notify_email_secure is {secure}",
            **{name: getattr(server, name) for name in ("host", "port", "secure")},
        )
    except smtplib.SMTPAuthenticationError as failure:
        return say(
            "{host} refused the login of notify_email_user (status {code})", host=server.host, code=failure.smtp_code
        )
    except smtplib.SMTPResponseException as failure:
        return say("status {code}", code=failure.smtp_code)
    except smtplib.SMTPRecipientsRefused as failure:
        return say("{count} recipients were refused", count=len(failure.recipients))
    except (OSError, smtplib.SMTPException) as failure:
        return say("no answer ({failure})", failure=type(failure).__name__)
