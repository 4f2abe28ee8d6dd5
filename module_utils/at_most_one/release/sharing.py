"""Decide which host builds a release, which ones get it from there, and whether all of them will serve the same build.

Next.js gives each build other ids, so that hosts that build for themselves refuse each other's pages. Asked more than
once while a release is made, from ever more facts: what a host has made counts before what was found there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import OperatorError
from ..findings import joined, observed, say

ONCE, EACH = "once", "each"
_PARTS = {"build_id": say("build id"), "static": say("assets"), "actions": say("server actions")}


@dataclass(frozen=True)
class Host:
    """What one host has of the release."""

    built: bool  # to its end
    live: bool  # it serves it: whoever built it, it is never built again or replaced there
    shared: bool  # it has all shared files
    platform: str = ""
    build: Mapping[str, Any] = field(default_factory=dict)  # as building.describe has it
    touched: bool = False  # this run has built it, linked its files, or brought it there
    finished: bool = False  # and not only linked its files

    @classmethod
    def of(cls, found: Mapping[str, Any], made: Mapping[str, Any]) -> Host:
        """From the results of release_info and, where it was called, release_build."""
        build = made.get("build", found.get("build", {}))
        return cls(
            **{name: found[name] for name in ("built", "live", "shared")},
            platform=found.get("platform", ""),
            build=build,
            touched="build" in made,
            finished=made.get("finished", False),
        )

    @property
    def serves(self) -> Mapping[str, str]:
        """What users meet of the build."""
        found: Mapping[str, str] = self.build.get("serves", {})
        return found

    @property
    def marker(self) -> Mapping[str, Any]:
        """What was written into the release when it was finished."""
        found: Mapping[str, Any] = self.build.get("marker", {})
        return found


@dataclass(frozen=True)
class Fleet:
    """The hosts of one environment; ``builder`` builds for all of them, unless ``mode`` lets each build for itself."""

    hosts: Mapping[str, Host]
    builder: str
    mode: str  # once | each

    @property
    def several(self) -> bool:
        return len(self.hosts) > 1

    @property
    def reference(self) -> Host:
        """The host whose build all are to serve."""
        return self.hosts[self.builder]


@dataclass(frozen=True)
class Work:
    """Which hosts have what to do. ``changes``: anything, also what this run has done already."""

    builds: Sequence[str]
    links: Sequence[str]  # their finished release lacks a shared file
    lacks: Sequence[str]  # they get the builder's release, which is finished
    changes: bool
    makes: bool  # anything is still to be made or compared


def work(fleet: Fleet) -> Work:
    """Decide who builds, who lacks links, and, once the builder has its release, who gets it from there."""
    builders = (fleet.builder,) if fleet.mode == ONCE or not fleet.several else fleet.hosts
    builds = [name for name in builders if not (fleet.hosts[name].built or fleet.hosts[name].live)]
    lacks = [name for name in fleet.hosts if fleet.several and fleet.mode == ONCE and _lacks(fleet, name, builds)]
    links = [
        name
        for name, host in fleet.hosts.items()
        if (host.built or host.live) and not host.shared and name not in lacks
    ]
    done = any(host.touched for host in fleet.hosts.values())
    makes = fleet.several or not (fleet.reference.live and fleet.reference.shared)
    return Work(builds, links, lacks, changes=bool(builds or links or lacks or done), makes=makes)


def _lacks(fleet: Fleet, name: str, builds: Sequence[str]) -> bool:
    """Whether this host is to get another build than it has. What it serves is never replaced."""
    host, reference = fleet.hosts[name], fleet.reference
    if name == fleet.builder or host.live or host.finished or _is_pending(fleet, fleet.builder, builds):
        return False
    same = host.serves == reference.serves and host.marker.get("digest") == reference.marker.get("digest")
    return not (host.marker and same)


def _is_pending(fleet: Fleet, name: str, builds: Sequence[str]) -> bool:
    return name in builds and not fleet.hosts[name].finished


def require_platforms(fleet: Fleet, env_file: str) -> None:
    """Raise OperatorError if a host cannot run what another one builds for it. ``env_file``: where a build's key is."""
    if fleet.mode != ONCE or not fleet.several:
        return
    wanted = fleet.reference.platform
    others = {name: host.platform for name, host in fleet.hosts.items() if host.platform != wanted}
    if others:
        seen = joined(
            (say("{name} has {platform}.", name=name, platform=platform) for name, platform in others.items()), " "
        )
        raise OperatorError(
            observed(
                "AMO-4114",
                "{seen} {builder}, where the release is built, has {wanted}.",
                seen=seen,
                builder=fleet.builder,
                wanted=wanted,
            ),
            expected=say("the same Node.js major version, architecture and libc on every host that gets this build."),
            next_step=say(
                "make them the same; or let each host build: -e release_build=each, with generateBuildId "
                "in next.config and NEXT_SERVER_ACTIONS_ENCRYPTION_KEY in {env_file} of every host. "
                "Nothing was built or shipped.",
                env_file=env_file,
            ),
        )


def require_one_build(fleet: Fleet, commit: str, env_file: str) -> None:
    """Raise OperatorError if hosts would serve different builds. Those that are yet to be made are not judged."""
    todo, wanted = work(fleet), fleet.reference.serves
    if _is_pending(fleet, fleet.builder, todo.builds):
        return
    others = {
        name: host.serves
        for name, host in fleet.hosts.items()
        if fleet.several and host.serves != wanted and name not in todo.lacks
        and not _is_pending(fleet, name, todo.builds)
    }  # fmt: skip
    if others:
        seen = joined(
            (
                say(
                    "{name} would serve build {build_id} of {commit}, {builder} build {wanted}. What "
                    "differs: {differs}.",
                    name=name,
                    build_id=serves.get("build_id") or "none",
                    commit=commit[:12],
                    builder=fleet.builder,
                    wanted=wanted.get("build_id") or "none",
                    differs=_differs(serves, wanted),
                )
                for name, serves in others.items()
            ),
            " ",
        )
        raise OperatorError(
            observed("AMO-4115", "Hosts would serve different builds. {seen}", seen=seen),
            expected=say(
                "one build on every host, because a page of one asks any of them for its assets and server actions."
            ),
            next_step=say(
                "{one_build_next} Nothing that serves was touched.",
                one_build_next=_one_build_next(fleet.mode, env_file),
            ),
        )


def _differs(serves: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    return joined((words for part, words in sorted(_PARTS.items()) if serves.get(part) != wanted.get(part)), ", ")


def _one_build_next(mode: str, env_file: str) -> str:
    if mode == EACH:
        return say(
            "deploy with -e release_build=once; or set generateBuildId in next.config, and "
            "NEXT_SERVER_ACTIONS_ENCRYPTION_KEY in {env_file} of every host, and deploy a new commit.",
            env_file=env_file,
        )
    return say(
        "a release that serves is never replaced, so deploy a commit that no host serves yet: "
        'git commit --allow-empty -m "Build once", git push, then the same command.'
    )


def loses_server_actions(fleet: Fleet) -> bool:
    """Whether pages that are open in the cutover would call server actions that the new build does not know."""
    actions = fleet.reference.build.get("server_actions", {})
    return not fleet.reference.live and actions.get("count", 0) > 0 and not actions["key_stays"]
