"""A mail server with as much SMTP as a client needs to hand over one letter (RFC 5321, 3207, 4954)."""

from __future__ import annotations

import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.certificates import Signed


class _Postman(socketserver.StreamRequestHandler):
    server: Office

    def setup(self) -> None:
        self.server.connections += 1
        if self.server.from_the_first_byte:
            self._secure()
        super().setup()

    def _secure(self) -> None:
        self.request = self.server.tls().wrap_socket(self.request, server_side=True)

    def handle(self) -> None:
        self.wfile.write(b"220 ready\r\n")
        self._serve()

    def _serve(self) -> None:
        for line in self.rfile:
            command = line[:4].upper()
            secure = isinstance(self.request, ssl.SSLSocket)
            self.server.commands.append(("tls " if secure else "plain ") + line.decode().split()[0].upper())
            if command == b"EHLO":
                offers = b"250-AUTH PLAIN\r\n" if secure or not self.server.signed else b"250-STARTTLS\r\n"
                self.wfile.write(b"250-office\r\n" + offers + b"250 8BITMIME\r\n")
                continue
            if command == b"STAR":
                self.wfile.write(b"220 go on\r\n")
                try:
                    self._secure()
                except OSError:
                    return
                super().setup()
                self._serve()
                return
            if command == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                self.server.letters.append(b"".join(iter(self.rfile.readline, b".\r\n")))
            self.wfile.write({b"QUIT": b"221 bye\r\n", b"AUTH": b"235 welcome\r\n"}.get(command, b"250 ok\r\n"))
            if command == b"QUIT":
                return


class Office(socketserver.ThreadingTCPServer):
    """The server. ``commands`` says of each word that it was told whether it came over TLS."""

    daemon_threads = True

    def __init__(self, signed: Signed | None, from_the_first_byte: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Postman)
        self.signed, self.from_the_first_byte = signed, from_the_first_byte
        self.letters: list[bytes] = []
        self.commands: list[str] = []
        self.connections = 0

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def tls(self) -> ssl.SSLContext:
        assert self.signed
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.signed.certificate, self.signed.key)
        return context

    def handle_error(self, *_: Any) -> None:
        """A client that does not trust the certificate hangs up: that is what a test wants to see."""


@contextmanager
def post_office(signed: Signed | None = None, *, from_the_first_byte: bool = False) -> Iterator[Office]:
    """A mail server that speaks TLS with this certificate, or none at all."""
    with Office(signed, from_the_first_byte) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()
