"""Reloads of an application whose answers name neither build nor process: its own id and files prove the build."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from at_most_one.errors import OperatorError
from at_most_one.http.proof import Demand, with_own_build
from at_most_one.http.served_build import Probe
from at_most_one.pm2 import client, preflight, proof, reload
from at_most_one.pm2.proof import already_proven
from at_most_one.system import processes
from at_most_one.system.processes import working_directory

from tests.service.conftest import App


def built(made_for: App, commit: str, build: str, *files: str, **behaviour: Any) -> Path:
    """A release with a build of this id, and these static files beside its manifest."""
    made = made_for.release(commit, script="next.cjs", **behaviour)
    for name in (f"{build}/_buildManifest.js", *files):
        (made / ".next/static" / name).parent.mkdir(parents=True, exist_ok=True)
        (made / ".next/static" / name).write_text("")
    (made / ".next/BUILD_ID").write_text(build)
    rules = [{"source": "/_next/static/:path*", "destination": "/assets/:path*"}] if behaviour.get("rewrite") else []
    (made / ".next/routes-manifest.json").write_text(json.dumps({"rewrites": {"fallback": rules}}))
    return made


def aim(app: App, release: Path) -> preflight.Aim:
    probe = Probe(f"{app.url}health", timeout_s=2)
    demand = Demand(app.name, str(release), probe, instance_timeout_s=10, stable_s=0.5)
    return preflight.Aim(demand, str(app.path), str(app.path / "ecosystem.config.cjs"))


@pytest.mark.parametrize(
    ("first", "second", "proof"),
    [
        ({"build": "one"}, {"build": "two"}, "page and file"),
        ({"build": "one", "rewrite": True}, {"build": "two", "rewrite": True}, "page"),
        ({"build": "one", "page": False, "rewrite": True}, {"build": "two", "page": False, "rewrite": True}, "nothing"),
        ({"build": "one"}, {"build": "one"}, "nothing"),
    ],
    ids=["as next start", "files of the link", "no page and files of the link", "the same build"],
)
def test_what_proves_the_build(app: App, first: dict[str, Any], second: dict[str, Any], proof: str) -> None:
    releases = []
    for commit, given in zip("ab", (first, second), strict=True):
        options = dict(given)
        releases.append(built(app, commit * 40, options.pop("build"), *options.pop("files", ()), **options))
    old, new = releases
    app.start(old)
    app.link(new)

    done = reload.reload(app.pm2, aim(app, new))
    assert done["build_proof"] == proof
    assert [working_directory(one.pid) for one in app.instances()] == [str(new)] * 2
    assert not reload.reload(app.pm2, aim(app, new))["changed"]

    if proof == "page and file":  # and back
        app.link(old)
        assert reload.reload(app.pm2, aim(app, old), only=[0, 1])["build_proof"] == proof
        assert [working_directory(one.pid) for one in app.instances()] == [str(old)] * 2


def test_a_process_of_the_other_build_is_not_taken_for_the_new_one(app: App) -> None:
    """The directory on disk says the new build, the process was started from the one before it was replaced there."""
    release = built(app, "a" * 40, "one")
    app.start(release)
    (release / ".next/static/two").mkdir()
    (release / ".next/static/two/_buildManifest.js").write_text("")
    (release / ".next/BUILD_ID").write_text("two")
    wanted = aim(app, release)
    demand = with_own_build(replace(wanted.demand, instance_timeout_s=1), [one.pid for one in app.instances()])
    assert demand.probe
    assert demand.probe.build == "two"
    assert [already_proven(demand, one, 2) for one in app.instances()] == [False, False]
    # So the reload takes each of them as due.
    assert reload.reload(app.pm2, wanted)["unchanged"] == []
    demand = with_own_build(wanted.demand, [one.pid for one in app.instances()])
    assert [already_proven(demand, one, 2) for one in app.instances()] == [True, True]


def test_ready_that_nobody_sends_is_waited_for_and_is_no_fault(app: App) -> None:
    waits = {"app": {"wait_ready": True, "listen_timeout": 1500}}
    old, new = built(app, "a" * 40, "one", **waits), built(app, "b" * 40, "two", **waits)
    app.start(old)
    app.link(new)
    assert [one.ready_wait_s for one in app.instances()] == [1.5, 1.5]

    short = aim(app, new)
    short = replace(short, demand=replace(short.demand, instance_timeout_s=1.5))
    with pytest.raises(OperatorError, match=r"PM2 waits up to 1\.5 s for each instance") as refused:
        preflight.preflight(app.pm2, short, linked=False)
    assert "set app_instance_timeout_s: 33 in the inventory" in refused.value.next_step
    assert reload.reload(app.pm2, aim(app, new))["changed"]
    assert all(one.online for one in client.listing(app.pm2, app.name).instances)


def test_the_time_that_pm2_waited_for_ready_is_time_that_it_was_up(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = {"app": {"wait_ready": True, "listen_timeout": 1500}}
    old, new = built(app, "a" * 40, "one", **waits), built(app, "b" * 40, "two", **waits)
    app.start(old)
    app.link(new)
    stays, left_s = processes.stays, []

    def noted(pid: int, ticks: int, until: float) -> bool:
        left_s.append(until - time.monotonic())
        return stays(pid, ticks, until)

    monkeypatch.setattr(proof, "stays", noted)
    wanted = aim(app, new)
    assert reload.reload(app.pm2, replace(wanted, demand=replace(wanted.demand, stable_s=2.5)))["changed"]
    # One second after its first answer is left of 2.5, or a little more where PM2 did not wait to the end.
    assert len(left_s) == 2
    assert all(0.9 < left < 1.5 for left in left_s), left_s
