"""Decide where a rollback leads: the release of each host, what of the database is taken back, what forbids it.

Both ways back are decided here: the one that a person asks for (:func:`asked_for`), and that of a run that has failed
(:func:`after_failure`). ``found`` is what :mod:`.reached` has read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..findings import Finding, Phrase, either, observed, say
from ..plan import Plan
from ..system.commit_names import short
from ..system.strict_zip import strict_zip

Answer = Mapping[str, Any]  # what a module has returned; empty where it was not called
CUTOVER = ("pm2_reload", "healthcheck")  # the phases in which a host may serve the new release
# What stays as it is where nothing but rows returns: whatever is deployed now, application and indexes.
_ROWS_ALONE: Answer = {
    **{"commit_before": "", "database": False, "point": "nothing", "fence": False, "hosts": {}},
    **{"built": [], "kept": [], "unplanned": [], "in_the_way": [], "purged": []},
}


@dataclass(frozen=True)
class Served:
    """What a host served when the run began, and the releases that are kept there.

    An application whose version its own commands change counts as one host: no release of it is kept here.
    """

    commit: str
    in_place: bool = False  # the application's path is the checkout itself
    releases: str = ""  # the directory of the kept releases
    kept: Sequence[str] | None = None  # their commits; None where commands change the version

    @classmethod
    def of(cls, host: Answer) -> Served:
        """The host as git_origin_info describes it."""
        releases = host["releases"]
        return cls(host["commit"], host["in_place"], releases["path"], tuple(releases["kept"]))


@dataclass(frozen=True)
class Asked:
    """What a person wants to be taken back."""

    commit: str = ""  # the release to go to, where it is not the one before
    only_rows: bool = False  # the rows that earlier rollbacks had to leave
    restore_rows: bool = True
    restore: str = "possible"  # or "all": one row that cannot return refuses all of them


@dataclass(frozen=True)
class HostWay:
    """Where one host goes: the directory, and the commit that its answers have to name."""

    name: str
    before: str  # the commit that it serves
    release: str
    build: str
    stays: bool  # it serves that already, from where it stands


@dataclass(frozen=True)
class WayBack:
    """What is taken back. ``found`` is that part of what was read which counts."""

    found: Answer
    commit: str  # what is served afterwards
    hosts: tuple[HostWay, ...]
    rows: bool = True  # whether archived rows return
    lost: tuple[str, ...] = ()  # hosts that cannot be reached and may serve the new release
    findings: tuple[Finding, ...] = ()  # why it must not be taken back
    is_of_failed_run: bool = False

    @property
    def rule(self) -> bool:
        """Whether the fence, the deployment's own indexes and the history are taken back.

        Indexes that were there before are not this deployment's and stay: while the rule's own is among them, no row
        can return.
        """
        found = self.found
        touched = found["database"] or found["point"] != "nothing" or found["fence"]
        brought = found["built"] or found["fence"] or not found["kept"]
        return bool(brought and found["runs"] and touched)

    @property
    def is_needed(self) -> bool:
        """Whether a failed run has reached anything."""
        return bool(self.hosts) or self.found["point"] != "nothing"

    @property
    def sentence(self) -> Phrase:
        """What becomes of the application, for the error of a failed run."""
        names = ", ".join(host.name for host in self.hosts)
        if not names:
            return say("no host was switched")
        return say("the application to {commit} on {hosts}", commit=short(self.commit), hosts=names)

    @property
    def refusal(self) -> str:
        """Why it must not be taken back; empty where nothing forbids it."""
        if len(self.findings) == 1:
            return str(self.findings[0])
        return " ".join(f"Seen: {finding}" for finding in self.findings)

    @property
    def lost_findings(self) -> tuple[Finding, ...]:
        """Why the database stays while a host cannot be reached; none where each one answers."""
        if not self.lost:
            return ()
        names = ", ".join(host.name for host in self.hosts)
        return (
            Finding(
                "lost",
                observed(
                    "AMO-2228",
                    "{lost} cannot be reached: the new code may run there, and would lose its guard without the"
                    " indexes, so the database stays as it is. {done}.",
                    lost=", ".join(self.lost),
                    done=(
                        say("Back at {commit}: {hosts}", commit=short(self.commit), hosts=names)
                        if names
                        else say("No other host was switched")
                    ),
                ),
                say("a connection to every host."),
                say("make them reachable, or take them out of service, so that none serves the new code."),
            ),
        )


def asked_for(plan: Plan, found: Answer, asked: Asked, hosts: Mapping[str, Served]) -> WayBack:
    """The way back that a person asks for, over all ``hosts``; without one, of the database alone."""
    if asked.only_rows:
        found = {**found, **_ROWS_ALONE, **found["left_behind"]}
    ways = []
    for name, served in hosts.items():
        before = {} if asked.commit else found["hosts"].get(name, {})
        ways.append(_way(name, served, before, asked.commit or found["commit_before"] or served.commit))
    first = next((served.commit for served in hosts.values()), "")
    return WayBack(
        found,
        asked.commit or found["commit_before"] or first,
        tuple(ways),
        rows=asked.restore_rows and found["content"]["pending"] > 0,
        findings=tuple(_forbidding(plan, found, asked, hosts, ways)),
    )


def after_failure(
    found: Answer,
    hosts: Mapping[str, Served],
    *,
    phase: str,
    paths: Sequence[Answer],
    links: Sequence[Answer],
    reloads: Sequence[Answer],
) -> WayBack:
    """The way back of a run that failed in ``phase``: what it has reached, and no more.

    ``paths``, ``links`` and ``reloads`` are in the order of ``hosts``: what stat says of the application's path, and
    what the run's own switch and reload have answered. A host whose link leads back again had begun to reload all the
    same: its instances are made sure of. A release that did not boot has touched neither.
    """
    ways, lost = [], []
    for (name, served), path, link, reload in strict_zip(hosts.items(), paths, links, reloads):
        way = _way(name, served, found["hosts"].get(name, {}), found["commit_before"] or "")
        stat = path.get("stat")
        if stat is None:
            lost += [name] if phase in CUTOVER else []
        elif stat.get("islnk") and (
            stat.get("lnk_source") != way.release
            or link.get("changed")
            or reload.get("changed")
            or reload.get("failed")
        ):
            ways.append(way)
    return WayBack(found, found["commit_before"] or "", tuple(ways), lost=tuple(lost), is_of_failed_run=True)


def version_after_failure(found: Answer, application: str, served: str, *, phase: str) -> WayBack:
    """The same of an application whose version commands change; ``served`` is what it served when the run began.

    It goes back where this run has begun to switch it, or an unfinished one from which this one goes on. Whether there
    is anything to do, the commands themselves are asked.
    """
    before = found["commit_before"] or ""
    began = before and (phase in CUTOVER or served != before)
    ways = (_way(application, Served(served), {}, before),) if began else ()
    return WayBack(found, before, ways, is_of_failed_run=True)


def _way(name: str, served: Served, before: Answer, commit: str) -> HostWay:
    build = before.get("commit") or commit
    if served.kept is None:
        return HostWay(name, served.commit, "", build, stays=False)
    # A checkout that stood in place then has been adopted since: it is the release of its commit, behind the link.
    adopted = before.get("in_place") or not before.get("release")
    release = f"{served.releases}/{build}" if adopted else before["release"]
    return HostWay(name, served.commit, release, build, served.in_place and served.commit == build)


def _forbidding(
    plan: Plan, found: Answer, asked: Asked, hosts: Mapping[str, Served], ways: Sequence[HostWay]
) -> Iterator[Finding]:
    content, rows = found["content"], asked.restore_rows and found["content"]["pending"] > 0
    elsewhere: Mapping[str, int] = (content.get("elsewhere") or {}) if asked.restore_rows else {}
    if not found["runs"] and not rows and not elsewhere:
        yield Finding(
            "nothing",
            observed(
                "AMO-2209",
                "There is nothing to roll back: the journal has no run of {plan_id} that changed anything and "
                "was not taken back, and {pending} rows are in the archive "
                "(rollback_restore_rows={restore_rows}).",
                plan_id=plan.id,
                pending=content["pending"],
                restore_rows=str(asked.restore_rows).lower(),
            ),
            say("a deployed or stopped run, or rows to restore."),
            say("nothing; ansible-playbook history.yml -l <environment> shows the runs."),
        )
        return
    if elsewhere:
        yield Finding(
            "elsewhere",
            observed(
                "AMO-2230",
                "{rows} archived rows are of another table than plan {plan_id} names: {tables}.",
                rows=sum(elsewhere.values()),
                plan_id=plan.id,
                tables=", ".join(elsewhere),
            ),
            say("rows of {schema}.{table}. Nothing was touched.", schema=plan.schema, table=plan.table),
            say(
                "where that table was renamed, let the archive know, as the role of this login: UPDATE "
                "at_most_one.archived_row SET table_schema = '{schema}', table_name = '{table}' WHERE plan_id = "
                "'{plan_id}' AND table_schema || '.' || table_name = '{old}' AND restored_at IS NULL; otherwise name it"
                " again in plans/{plan_id}.yml. Without the rows: ansible-playbook rollback.yml -l <environment> -e "
                "rollback_restore_rows=false.",
                schema=plan.schema,
                table=plan.table,
                plan_id=plan.id,
                old=[*elsewhere][0],  # noqa: RUF015  (inside a generator, pylint reads next() as its end)
            ),
        )
    if unplanned := found.get("unplanned"):
        yield Finding(
            "unplanned",
            observed(
                "AMO-2232",
                "This deployment has built {indexes}, which plan {plan_id} names no more: its file was changed since.",
                indexes=", ".join(unplanned),
                plan_id=plan.id,
            ),
            say("the plan by which it was deployed: what another one does not name would stay. Nothing was touched."),
            say(
                "give plans/{file}.yml the content that it had then, then ansible-playbook rollback.yml"
                " -l <environment>; the new content can be deployed after it.",
                file=plan.file,
            ),
        )
    if found["in_the_way"]:
        yield Finding(
            "in_the_way",
            observed(
                "AMO-2210",
                "{count} runs of other plans are at work, or serve a later commit on top of this "
                "deployment: {in_the_way}.",
                count=len(found["in_the_way"]),
                in_the_way=", ".join(found["in_the_way"]),
            ),
            say("none."),
            say(
                "wait for them, or take them back first: ansible-playbook rollback.yml -l <environment> "
                "-e plan=<their plan>; ansible-playbook history.yml -l <environment> names it."
            ),
        )
    for way in ways:
        served = hosts[way.name]
        before = found["hosts"].get(way.name, {}).get("commit", "") if not asked.commit else ""
        known = list(dict.fromkeys(filter(None, (found.get("commit_after"), found["commit_before"], before))))
        newer = found["runs"] and not asked.only_rows and not asked.commit and served.commit not in known
        if newer and served.kept is None:
            yield Finding(
                "served",
                observed(
                    "AMO-2229",
                    "{version} serves, which this deployment neither brought nor found: going back to {build} would"
                    " take away a newer version.",
                    version=served.commit,
                    build=way.build,
                ),
                say("{known}.", known=either(known)),
                say("name the version to go to: -e rollback_commit=<version>."),
            )
        elif newer:
            yield Finding(
                "served",
                observed(
                    "AMO-2211",
                    "{host} serves {commit}, which this deployment neither brought nor found: going back to "
                    "{build} would take away newer code.",
                    host=way.name,
                    commit=served.commit,
                    build=way.build,
                ),
                say("{known}.", known=either(known)),
                say("name the release to go to: -e rollback_commit=<40 hexadecimal digits>."),
            )
        if served.kept is not None and not way.stays and way.release.rpartition("/")[2] not in served.kept:
            yield Finding(
                "kept",
                observed(
                    "AMO-2212",
                    "The release to go back to, {release}, is not there on {host}; kept there: {kept}.",
                    release=way.release,
                    host=way.name,
                    kept=", ".join(served.kept) or say("none"),
                ),
                say("a kept release."),
                say(
                    "name a kept one with -e rollback_commit=<40 hexadecimal digits>, or build this one "
                    "again: ansible-playbook deploy.yml -l <environment> -e app_commit={build}; the indexes "
                    "stay then.",
                    build=way.build,
                ),
            )
    if asked.restore_rows and found["purged"]:
        purged = ", ".join(f"{one['run_id']} on {one['at']}" for one in found["purged"])
        yield Finding(
            "purged",
            observed(
                "AMO-2213",
                "The archive of this deployment was purged ({purged}): its {rows} rows cannot return.",
                purged=purged,
                rows=sum(one["rows"] for one in found["purged"]),
            ),
            say("every archived row that the deployment removed. Nothing was touched."),
            say(
                "go back without the rows: ansible-playbook rollback.yml -l <environment> -e "
                "rollback_restore_rows=false; a backup of the provider may have them."
            ),
        )
    if rows and asked.restore == "all" and content["taken"]:
        yield Finding(
            "taken",
            observed(
                "AMO-2214",
                "Newer rows are in {schema}.{table} in the place of archived ones: {keys}.",
                schema=plan.schema,
                table=plan.table,
                keys=_keys(content["taken"]),
            ),
            say("none; restoring would overwrite newer data. Nothing was touched."),
            say(
                "compare them by hand, or put back the others and leave these in the archive: -e "
                "rollback_restore=possible."
            ),
        )


def _keys(taken: Sequence[Answer]) -> str:
    return json.dumps([dict(key) for key in taken], ensure_ascii=False)
