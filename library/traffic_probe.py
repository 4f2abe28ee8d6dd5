#!/usr/bin/python
"""A prober that asks the application from outside while it is being switched, and its receipt."""

from __future__ import annotations

DOCUMENTATION = r"""
module: traffic_probe
short_description: Ask an application on a fixed schedule during a change, and say what its users saw
description:
  - V(started) leaves a detached process behind that asks the given addresses in turn, on a fixed schedule that does not
    wait for answers. A request's latency counts from the moment it was due, so a stall is seen as what it is.
  - V(stopped) ends it and returns the receipt. The receipt is also in O(output), as JSON.
  - V(measured) asks one request after the other for O(measure_s), alone, and returns what the service answers at and
    which rate a prober may have, so that it never is a load test. It fails for an address that each time answers
    with another status below 500 than expected, because the receipt of the cutover would count that as lost.
options:
  state:
    description:
      - V(started) starts the prober unless it runs already; V(stopped) stops it and reads the receipt. V(measured) asks
        for a moment and leaves nothing behind.
    type: str
    choices: [started, stopped, measured]
    required: true
  output:
    description:
      - The file of the receipt, on the host where the prober runs. The same for V(started) and V(stopped).
      - A file of that name is removed by V(started). Next to it stands C(<output>.pid) while the prober runs.
      - Required by V(started) and V(stopped).
    type: path
  urls:
    description: What to ask; the addresses take turns. Required by V(started) and V(measured).
    type: list
    elements: dict
    suboptions:
      name:
        description: How the address is called in the receipt.
        type: str
        required: true
      url:
        description: The address. Redirects are not followed, proxies not used.
        type: str
        required: true
      method:
        description: The request method.
        type: str
        choices: [GET, HEAD, POST]
        default: GET
      expect:
        description: Status codes that count as a success.
        type: list
        elements: int
        default: [200]
      legitimate:
        description:
          - Status codes of refusals that the service owes its users, such as 409. They are answers and no failures, and
            are counted apart.
        type: list
        elements: int
        default: []
      headers:
        description: Request headers, such as a login. They are kept in memory only.
        type: dict
        default: {}
      body:
        description: The request's body, for POST.
        type: str
  rate_per_s:
    description: Requests a second, over all addresses together. With V(measured) the most that is asked and returned.
    type: float
    default: 20
  least_rate_per_s:
    description: With V(measured), the rate below which RV(watched_closely) is false.
    type: float
    default: 2
  below_least:
    description: With V(measured), whether a rate below O(least_rate_per_s) fails the task.
    type: str
    choices: [warn, stop]
    default: warn
  max_failed_percent:
    description:
      - With V(stopped), percent of the requests that may have failed; unless it is 0, a single one may. Together with
        O(max_gap_ms).
    type: float
  max_gap_ms:
    description:
      - With V(stopped), milliseconds without a good answer. The time between two requests and RV(p50_before_ms) are
        added.
    type: int
  measure_s:
    description: Seconds that V(measured) takes; a request under way is waited for.
    type: float
    default: 3
  p50_before_ms:
    description: With V(started), the median that was measured before, for the receipt.
    type: float
  keepalive:
    description: Whether connections are kept, as browsers and proxies do, or opened for each request.
    type: bool
    default: false
  timeout_s:
    description: Seconds after which a request without an answer has failed.
    type: float
    default: 10
  max_s:
    description: Seconds after which the prober ends by itself, for the case that nobody stops it.
    type: float
    default: 1800
  controller_pid:
    description:
      - A process of the same host. When it is gone the prober ends within seconds, with a receipt. Meant for
        ansible-playbook itself, so that a killed deployment leaves nothing behind.
    type: int
  build_header:
    description: The response header that names the build, to say when the old one answered last.
    type: str
attributes:
  check_mode:
    support: full
    description: Starts and stops nothing; V(stopped) then returns zero requests. V(measured) asks all the same.
  diff_mode:
    support: none
    description: The prober is not managed state.
extends_documentation_fragment:
  - at_most_one.in_process
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Watch the application from outside
  traffic_probe:
    state: started
    output: /var/tmp/at-most-one/receipt.json
    urls:
      - {name: page, url: "http://127.0.0.1:3000/"}
      - {name: api, url: "http://127.0.0.1:3000/api/health"}
    rate_per_s: 50
    build_header: x-app-commit

- name: Measure what the service bears, before anything is touched
  traffic_probe:
    state: measured
    urls:
      - {name: page, url: "http://127.0.0.1:3000/"}
    rate_per_s: 50
  register: capacity

- name: Read the receipt
  traffic_probe:
    state: stopped
    output: /var/tmp/at-most-one/receipt.json
  register: receipt
"""

RETURN = r"""
pid:
  description: The pid of the prober, null in check mode.
  returned: when state is started
  type: int
  sample: 4711
rate_per_s:
  description:
    - Requests a second that the prober was to send.
    - With V(measured) those that it may send, the lower of O(rate_per_s) and a third of RV(bears_per_s).
  returned: when state is stopped or measured
  type: float
  sample: 22.1
bears_per_s:
  description: Requests a second that one client gets answered that waits for each answer.
  returned: when state is measured
  type: float
  sample: 66.4
shortest_gap_ms:
  description: Milliseconds; a shorter pause does not show in a receipt at that rate.
  returned: when state is measured
  type: int
  sample: 60
findings:
  description: What RV(refusal) consists of.
  returned: O(state=stopped)
  type: list
  elements: dict
  sample: []
refusal:
  description: Why the receipt is not within O(max_failed_percent) and O(max_gap_ms), empty where it is.
  returned: when state is stopped and the two are given
  type: str
  sample: ""
watched_closely:
  description: Whether RV(rate_per_s) is at least O(least_rate_per_s).
  returned: when state is measured
  type: bool
  sample: true
targets_p50_ms:
  description: The median of each address by its name.
  returned: when state is measured
  type: dict
  sample: {"page": 21.3, "health": 8.8}
p50_before_ms:
  description: The median that was measured before, null where it was not given.
  returned: when state is stopped
  type: float
  sample: 14.9
requests:
  description: How many requests were due and have an outcome.
  returned: when state is stopped or measured
  type: int
  sample: 2412
failures:
  description: How many of them had no answer or one with an unexpected status.
  returned: when state is stopped or measured
  type: int
  sample: 0
failures_by_kind:
  description: The failures by kind (dns, refused, reset, timeout, tls, cut, malformed, stalled, status_503, ...).
  returned: when state is stopped
  type: dict
  sample: {"reset": 2, "status_503": 1}
legitimate:
  description: The legitimate refusals by status; they are among the requests, not among the failures.
  returned: when state is stopped
  type: dict
  sample: {"status_409": 31}
longest_gap_ms:
  description: The longest time without any successful answer, start and end of the probe included.
  returned: when state is stopped
  type: int
  sample: 61
p50_ms:
  description:
    - Half of the successes came within this time after they were due; p95_ms and p99_ms likewise.
    - With V(measured) the time of an answer, null when there was none.
  returned: when state is stopped or measured
  type: float
  sample: 3.1
max_ms:
  description: The latest success.
  returned: when state is stopped
  type: float
  sample: 210.4
last_old_answer:
  description: The last answer of a build other than the one that answered last, null when there was one build.
  returned: when state is stopped
  type: str
  sample: "2025-11-10T05:31:02.512+00:00"
builds:
  description: Every build seen, with the number of answers and when the first and the last came.
  returned: when state is stopped
  type: dict
  sample: {"4b825dc": {"answers": 1200, "first": "2025-11-10T05:30:02.1+00:00", "last": "2025-11-10T05:31:02.5+00:00"}}
targets:
  description: The same figures for each address by its name.
  returned: when state is stopped
  type: dict
  sample: {"page": {"requests": 1206, "failures": 0, "longest_gap_ms": 102}}
course:
  description: The same in order, in at most 60 steps of whole seconds, each with the requests that were due in it, how
    many of them failed, and how many milliseconds the slowest success took.
  returned: when state is stopped
  type: list
  elements: dict
  sample: [{"from_s": 0, "requests": 50, "failures": 0, "slowest_ms": 12.4}]
first_failures:
  description: The first 50 failures, when, where and of what kind.
  returned: when state is stopped
  type: list
  elements: dict
  sample: [{"at": "2025-11-10T05:31:01.004+00:00", "name": "page", "kind": "reset"}]
started_at:
  description: When the prober began; ended_at is when it ended.
  returned: when state is stopped
  type: str
  sample: "2025-11-10T05:30:02.101+00:00"
ended_by:
  description: V(signal) when it was stopped, V(max_s) or V(controller_gone) when it ended by itself before that.
  returned: when state is stopped
  type: str
  sample: signal
"""

from dataclasses import asdict
from typing import Any

from ansible.module_utils.at_most_one.errors import OperatorError
from ansible.module_utils.at_most_one.findings import observed, say
from ansible.module_utils.at_most_one.http.client import place
from ansible.module_utils.at_most_one.service import capacity, receipt, traffic_probe
from ansible.module_utils.at_most_one_entry import Call, run

URL = {
    "name": {"type": "str", "required": True},
    "url": {"type": "str", "required": True},
    "method": {"type": "str", "choices": ["GET", "HEAD", "POST"], "default": "GET"},
    "expect": {"type": "list", "elements": "int", "default": [200]},
    "legitimate": {"type": "list", "elements": "int", "default": []},
    "headers": {"type": "dict", "default": {}, "no_log": True},
    "body": {"type": "str"},
}
OPTIONS = {
    "state": {"type": "str", "choices": ["started", "stopped", "measured"], "required": True},
    "output": {"type": "path"},
    "urls": {"type": "list", "elements": "dict", "options": URL},
    "rate_per_s": {"type": "float", "default": 20.0},
    "least_rate_per_s": {"type": "float", "default": 2.0},
    "below_least": {"type": "str", "choices": ["warn", "stop"], "default": "warn"},
    "max_failed_percent": {"type": "float"},
    "max_gap_ms": {"type": "int"},
    "measure_s": {"type": "float", "default": 3.0},
    "p50_before_ms": {"type": "float"},
    "keepalive": {"type": "bool", "default": False},
    "timeout_s": {"type": "float", "default": 10.0},
    "max_s": {"type": "float", "default": 1800.0},
    "controller_pid": {"type": "int"},
    "build_header": {"type": "str"},
}
REQUIRED_IF = [
    ("state", "started", ("urls", "output")),
    ("state", "stopped", ("output",)),
    ("state", "measured", ("urls",)),
]
_NOTHING_SEEN: dict[str, Any] = {
    "findings": [],
    "rate_per_s": None,
    "p50_before_ms": None,
    "requests": 0,
    "failures": 0,
    "failures_by_kind": {},
    "legitimate": {},
    "longest_gap_ms": 0,
    "last_old_answer": None,
    "course": [],
    "builds": {},
    "targets": {},
    "first_failures": [],
    "p50_ms": None,
    "p95_ms": None,
    "p99_ms": None,
    "max_ms": None,
    "started_at": None,
    "ended_at": None,
    "ended_by": None,
}


def _target(url: dict[str, Any]) -> traffic_probe.Target:
    return traffic_probe.Target(
        *(url["name"], url["url"], url["method"], tuple(url["expect"]), tuple(url["legitimate"])),
        headers=tuple((str(name), str(value)) for name, value in url["headers"].items()),
        body=url["body"],
    )


def _settings(given: dict[str, Any]) -> traffic_probe.Settings:
    urls = given["urls"]
    for url in urls:
        place(url["url"])
    if not urls or len({url["name"] for url in urls}) != len(urls) or not 0 < given["rate_per_s"] <= 1000:
        raise OperatorError(
            observed(
                "AMO-1008",
                "{count} urls at {rate_per_s} requests a second.",
                count=len(urls),
                rate_per_s=f"{given['rate_per_s']:g}",
            ),
            expected=say("at least one, each with a name of its own, and a rate above 0 and up to 1000."),
            next_step=say("correct urls and rate_per_s of the traffic probe."),
        )
    return traffic_probe.Settings(
        tuple(_target(url) for url in urls),
        **{name: given[name] for name in ("rate_per_s", "keepalive", "timeout_s", "max_s")},
        controller_pid=given["controller_pid"],
        build_header=given["build_header"] or None,
        p50_before_ms=given["p50_before_ms"],
    )


def act(call: Call) -> dict[str, Any]:
    given = call.params
    output = given["output"]
    if given["state"] == "measured":
        found = capacity.measure(
            _settings(given), seconds=given["measure_s"], least_rate_per_s=given["least_rate_per_s"]
        )
        if given["below_least"] == "stop":
            capacity.require(found, given["least_rate_per_s"])
        return {"changed": False, **asdict(found)}
    if given["state"] == "started":
        settings = _settings(given)
        if call.check_mode:
            return {"changed": traffic_probe.running(output) is None, "pid": None}
        pid, changed = traffic_probe.start(settings, output)
        return {"changed": changed, "pid": pid}
    if call.check_mode:
        return {"changed": traffic_probe.running(output) is not None, **_NOTHING_SEEN}
    seen, ran = traffic_probe.stop(output)
    percent, gap_ms = given["max_failed_percent"], given["max_gap_ms"]
    if percent is None or gap_ms is None:
        return {"changed": ran, **seen}
    refused = receipt.refusal(seen, receipt.Limits(percent, gap_ms), output)
    told = {"refusal": str(refused or ""), "findings": [refused.as_data()] if refused else []}
    return {"changed": ran, **seen, **told}


def main() -> None:
    run(OPTIONS, act, needs_psycopg2=False, required_if=REQUIRED_IF)


if __name__ == "__main__":
    main()
