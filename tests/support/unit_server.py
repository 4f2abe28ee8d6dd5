"""A small real service for the tests: it names its build and process, and does what behaviour.json beside it says."""

from __future__ import annotations

import http.server
import json
import os
import pathlib
import sys
import threading
import time

behaviour = json.loads(pathlib.Path("behaviour.json").read_text())
fault = behaviour.get("fault")
print(f"listens on {sys.argv[1]}", flush=True)
if fault == "crash at boot":
    sys.exit("Error: boot: postgresql://app:s3cret@db.example/app has no such column")


class Handler(http.server.BaseHTTPRequestHandler):
    wbufsize = -1  # an answer is sent whole or not at all, also by a process that ends meanwhile

    def do_GET(self) -> None:
        if fault == "silent":
            time.sleep(3600)
        body = json.dumps({"status": "ok", "commit": behaviour["commit"]}).encode()
        self.send_response(200)
        self.send_header("x-app-commit", behaviour.get("answers") or behaviour["commit"])
        self.send_header("x-app-pid", str(os.getpid()))
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *given: object) -> None:
        pass


def crash() -> None:
    time.sleep(0.6)
    print("Error: late: the first timer fired", flush=True)
    os._exit(1)


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
server.daemon_threads = True
if fault == "crash after boot":
    threading.Thread(target=crash, daemon=True).start()
server.serve_forever()
