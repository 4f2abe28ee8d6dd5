"""A git origin over HTTP that wants a token, as a company's own does."""

from __future__ import annotations

import base64
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

USER = "deploy"


class _Guarded(SimpleHTTPRequestHandler):
    """Files for those who prove who they are; slow enough for a look at the process list."""

    def __init__(self, proof: str, *given: object, directory: str) -> None:
        self.proof = proof
        super().__init__(*given, directory=directory)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        if self.headers["Authorization"] != self.proof:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.end_headers()
            return
        time.sleep(0.02)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def guarded(bare: Path, token: str, user: str = USER) -> Iterator[str]:
    """Serve this bare repository; gives its address, with the token in it."""
    subprocess.run(["git", "-C", bare, "update-server-info"], check=True)
    proof = "Basic " + base64.b64encode(f"{user}:{token}".encode()).decode()
    handler = partial(_Guarded, proof, directory=str(bare.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{user}:{quote(token, safe='')}@127.0.0.1:{server.server_port}/{bare.name}"
        finally:
            server.shutdown()
