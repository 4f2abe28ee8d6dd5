"""What tells one build of Next.js from another where no header does: ids in pages, files that only one of them has."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from at_most_one.errors import OperatorError
from at_most_one.http import build_probe

# As the App Router writes it (Next.js 15 and 16), and as the Pages Router does.
FLIGHT = r'<script>self.__next_f.push([1,"0:{\"P\":null,\"b\":\"%s\",\"c\":[\"\",\"\"]}"])</script>'
NEXT_DATA = '<script id="__NEXT_DATA__" type="application/json">{"props":{},"buildId":"%s"}</script>'


class Service(BaseHTTPRequestHandler):
    """Answers what the test has put under each path; 404 else."""

    answers: ClassVar[dict[str, tuple[int, str]]] = {}

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        status, body = self.answers.get(self.path, (404, ""))
        self.send_response(status)
        if status in (302, 307):
            self.send_header("Location", body)
        self.end_headers()
        self.wfile.write(body.encode())


class Live(BaseHTTPRequestHandler):
    """The service that users see meanwhile: answers each request with one status."""

    status = 200

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()


@pytest.fixture
def service() -> Iterator[tuple[build_probe.Asker, dict[str, tuple[int, str]]]]:
    Service.answers = {}
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield build_probe.Asker(f"http://127.0.0.1:{server.server_port}"), Service.answers
        server.shutdown()


def release(root: Path, name: str, build: str, *files: str, routes: dict[str, Any] | None = None) -> Path:
    """A built release with these static files beside its build manifest."""
    made = root / name
    for file in (f"{build}/_buildManifest.js", *files):
        path = made / ".next/static" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file)
    (made / ".next/BUILD_ID").write_text(f"{build}\n")
    (made / ".next/routes-manifest.json").write_text(json.dumps(routes or {}))
    return made


def test_what_is_no_build_of_next_proves_nothing(tmp_path: Path) -> None:
    assert build_probe.proof_of(tmp_path, []) is None


def test_the_id_and_the_manifest_tell_it(tmp_path: Path) -> None:
    old, new = release(tmp_path, "old", "one"), release(tmp_path, "new", "two")
    proof = build_probe.proof_of(new, [old])
    assert proof == build_probe.BuildProof("two", ("one",), "", True, "/_next/static/two/_buildManifest.js")


def test_with_the_same_id_a_file_of_its_own_tells_it(tmp_path: Path) -> None:
    """As with a constant generateBuildId."""
    old, new = release(tmp_path, "old", "v1", "chunks/a.js"), release(tmp_path, "new", "v1", "chunks/b.js")
    proof = build_probe.proof_of(new, [old])
    assert proof
    assert (proof.in_page, proof.file) == (False, "/_next/static/chunks/b.js")


def test_with_the_same_id_and_files_nothing_tells_it(tmp_path: Path) -> None:
    old, new = release(tmp_path, "old", "v1", "chunks/a.js"), release(tmp_path, "new", "v1", "chunks/a.js")
    proof = build_probe.proof_of(new, [old])
    assert proof
    assert not proof.proves


def test_a_file_that_the_other_build_has_been_given_tells_nothing(tmp_path: Path) -> None:
    """On the way back: the withdrawn release carries the assets of the one before, and answers 200 for them."""
    old = release(tmp_path, "old", "one", "chunks/a.js")
    new = release(tmp_path, "new", "two", "one/_buildManifest.js", "chunks/a.js")
    proof = build_probe.proof_of(old, [new])
    assert proof
    assert (proof.build_id, proof.in_page, proof.file) == ("one", True, None)


@pytest.mark.parametrize("kind", ["beforeFiles", "afterFiles", "fallback", "list"])
def test_a_file_tells_nothing_where_the_application_hands_files_out_by_itself(tmp_path: Path, kind: str) -> None:
    """An old process would answer for a file of the new release, to which the application's path leads already."""
    rules = [{"source": "/_next/static/:path*", "destination": "/assets/:path*"}]
    routes = {"rewrites": rules if kind == "list" else {kind: rules}}
    old, new = release(tmp_path, "old", "one"), release(tmp_path, "new", "two", routes=routes)
    proof = build_probe.proof_of(new, [old])
    assert proof
    assert (proof.in_page, proof.file) == (True, None)


@pytest.mark.parametrize("page", [FLIGHT, NEXT_DATA])
def test_the_page_names_the_build_that_answers(service: Any, page: str) -> None:
    asker, answers = service
    proof = build_probe.BuildProof("two", ("one", "zero"))
    answers["/"] = (200, page % "two")
    assert build_probe.seen_build(proof, asker) == "two"
    answers["/"] = (200, page % "one")
    assert build_probe.seen_build(proof, asker) == "one"
    answers["/"] = (200, "<p>two</p>")
    assert build_probe.seen_build(proof, asker) is None


def test_a_page_behind_a_redirect_is_found_and_one_elsewhere_is_not_asked(service: Any) -> None:
    asker, answers = service
    proof = build_probe.BuildProof("two", base_path="/app")
    answers["/app"], answers["/app/login"] = (307, "/app/login"), (200, NEXT_DATA % "two")
    assert build_probe.seen_build(proof, asker) == "two"
    answers["/app"] = (307, "http://elsewhere.invalid/login")
    assert build_probe.seen_build(proof, asker) is None


def test_the_file_must_be_served_too(service: Any) -> None:
    asker, answers = service
    proof = build_probe.BuildProof("two", ("one",), file="/_next/static/two/_buildManifest.js")
    answers["/"] = (200, FLIGHT % "two")
    assert build_probe.seen_build(proof, asker) == "(no /_next/static/two/_buildManifest.js: 404)"
    answers[str(proof.file)] = (200, "")
    assert build_probe.seen_build(proof, asker) == "two"
    answers["/"] = (404, "")  # an application without a page
    assert build_probe.seen_build(proof, asker) == "two"
    answers["/"] = (200, FLIGHT % "one")
    assert build_probe.seen_build(proof, asker) == "one"


def test_an_id_that_both_builds_have_proves_nothing_by_itself(service: Any) -> None:
    asker, answers = service
    answers["/"] = (200, FLIGHT % "v1")
    assert build_probe.seen_build(build_probe.BuildProof("v1", in_page=False), asker) is None


def test_missing_files_are_those_that_the_manifests_name(tmp_path: Path) -> None:
    made = release(tmp_path, "new", "two", "chunks/a.js")
    build_probe.require_files(made)  # no manifest names a file
    named = {"rootMainFiles": ["static/chunks/a.js", "static/chunks/b.js"], "pages": {"/_app": ["static/chunks/c.js"]}}
    (made / ".next/build-manifest.json").write_text(json.dumps(named))
    assert build_probe.missing_files(made) == [".next/static/chunks/b.js", ".next/static/chunks/c.js"]
    with pytest.raises(OperatorError, match="is not whole: it has no") as refused:
        build_probe.require_files(made)
    assert f"rm -rf {made}" in refused.value.next_step


PAGE = """<link rel="stylesheet" href="/_next/static/a.css"><link rel="icon" href="/none.ico">
<link rel="preload" as="script" href="/_next/static/b.js?v=1"><script src="/_next/static/c.js"></script>
<script src="https://elsewhere.invalid/d.js"></script><script>inline</script>
<script src="/_next/static/a.css"></script>"""


def test_scripts_and_styles_of_the_page_must_be_served_and_be_its_own(service: Any, tmp_path: Path) -> None:
    asker, answers = service
    made = release(tmp_path, "new", "two", "a.css", "b.js", "c.js")
    answers["/"] = (200, PAGE)
    parts = ("/_next/static/a.css", "/_next/static/b.js?v=1", "/_next/static/c.js")
    answers.update(dict.fromkeys(parts, (200, "")))
    assert build_probe.broken_assets(asker, made, asker) == []
    answers["/_next/static/c.js"] = (404, "")
    assert build_probe.broken_assets(asker, made, asker) == ["/_next/static/c.js: 404"]
    answers["/_next/static/c.js"] = (200, "")
    (made / ".next/static/b.js").unlink()  # a rewrite hands it out from the release that still serves
    assert build_probe.broken_assets(asker, made, asker) == ["/_next/static/b.js?v=1: not in this release"]
    answers["/"] = (500, PAGE)
    assert build_probe.broken_assets(asker, made, asker) == []


def test_a_script_that_is_no_part_of_a_build_counts_only_where_the_live_service_does_better(
    service: Any, tmp_path: Path
) -> None:
    asker, answers = service
    made = release(tmp_path, "new", "two")
    answers["/"] = (200, '<script src="/statistics.js"></script>')
    with ThreadingHTTPServer(("127.0.0.1", 0), Live) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        live = build_probe.Asker(f"http://127.0.0.1:{server.server_port}")
        Live.status = 502
        assert build_probe.broken_assets(asker, made, live) == []
        Live.status = 200
        assert build_probe.broken_assets(asker, made, live) == ["/statistics.js: 404"]
        server.shutdown()


def test_whether_the_page_of_now_names_any_build(service: Any) -> None:
    asker, answers = service
    proof = build_probe.BuildProof("two", ("one",))
    assert not build_probe.page_names_a_build(proof, asker)
    answers["/"] = (200, FLIGHT % "one")
    assert build_probe.page_names_a_build(proof, asker)
    assert not build_probe.page_names_a_build(proof, build_probe.Asker("http://127.0.0.1:1"))
