"""The fault matrix: every fault, how it is injected for real, and what must come of it.

``tested_by`` is the id of the test that injects it; tests/house/test_faults.py holds this table to what there is.
What stops before anything is changed is in test_injected_faults.py, releases that are wrong are in
test_wrong_releases.py; other suites inject the rest, for reasons of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

STOPS = "tests/deploy/test_injected_faults.py::test_stops_and_leaves_nothing"
RELEASES = "tests/deploy/test_wrong_releases.py::test_a_wrong_release"
KNOWN = "tests/deploy/test_known_faults.py::test_a_fault_that_was_there_before"
NOISY = "tests/deploy/test_noisy_and_slow_service.py"
ONE_BUILD = "tests/hosts/test_one_build.py"
BACK = "tests/deploy/test_automatic_rollback.py"
RETURN = "tests/database/test_restore.py"
REAL = "tests/deploy/test_real_databases.py"


@dataclass(frozen=True)
class Fault:
    """One fault and its verdict. ``phase`` and ``outcome`` are the report's; None: no run was opened or none ended."""

    injected: str
    phase: str | None
    outcome: str | None
    says: tuple[str, ...]  # words of the first error
    left: str
    tested_by: str


FAULTS = {
    "crash at boot": Fault(
        "a release whose process ends while it loads (lab/faults/crash-at-boot; in molecule/fault a real build)",
        "prepare",
        "stopped",
        ("does not boot", "crash-at-boot"),
        "nothing was touched, so nothing is taken back",
        f"{BACK}::test_a_release_that_does_not_boot_stops_before_a_row_leaves",
    ),
    "crash after 2 s": Fault(
        "a release that boots, answers, and ends two seconds later (lab/faults/crash-later)",
        "prepare",
        "stopped",
        ("does not boot: it answered and then ended with exit code 1", "crash-later"),
        "nothing was touched, so nothing is taken back",
        f"{RELEASES}[crash after 2 s]",
    ),
    "boot slower than the timeout": Fault(
        "a release that answers after five minutes (lab/faults/slow-boot), where 4 seconds are allowed",
        "prepare",
        "stopped",
        ("does not boot", "after 4 s"),
        "nothing was touched, so nothing is taken back",
        f"{RELEASES}[boot slower than the timeout]",
    ),
    "wrong build served": Fault(
        "a commit that is served by a build of another one (lab/faults/wrong-build), where answers name their commit",
        "prepare",
        "stopped",
        ("does not boot", "it names build"),
        "nothing was touched, so nothing is taken back",
        f"{RELEASES}[wrong build served]",
    ),
    "removed BUILD_ID": Fault(
        "a release that was finished and has lost .next/BUILD_ID since, as a failed build in place leaves it",
        "prepare",
        "stopped",
        ("does not boot: it ended with exit code 1", "It wrote:", "production build"),
        "nothing was touched, so nothing is taken back",
        f"{RELEASES}[removed BUILD_ID]",
    ),
    "missing chunks": Fault(
        "a build that ends well and leaves no .next/static/chunks",
        "prepare",
        "stopped",
        ("is not whole: it has no .next/static/chunks/", "rm -rf"),
        "nothing was touched; the failed release has no marker and no link",
        f"{STOPS}[missing chunks]",
    ),
    "missing shared file": Fault(
        "prepare_shared_files names .env, which the service does not have",
        "prepare",
        "stopped",
        ("prepare_shared_files names .env: neither", "set prepare_shared_files: [.env.production]"),
        "nothing was touched; nothing of the release was fetched",
        f"{STOPS}[missing shared file]",
    ),
    "another way of deploying": Fault(
        "the path leads to a release, and a workflow of the application has reset it to another commit in place",
        "prepare",
        "stopped",
        ("is the release of", "prepare_allow_changed_release=true"),
        "nothing was touched; nothing of the release was fetched",
        f"{STOPS}[another way of deploying]",
    ),
    "failed build": Fault(
        "a commit that next build refuses (lab/faults/failed-build)",
        "prepare",
        "stopped",
        (),
        "nothing was touched; the failed release has no marker and no link",
        "tests/deploy/test_stops.py::test_failed_build_leaves_the_live_site_as_it_was",
    ),
    "health value wrong": Fault(
        "a release that answers 200 and calls itself degraded (lab/faults/wrong-health)",
        "healthcheck",
        "rolled_back",
        ("degraded", "healthy"),
        "everything as before; every instance went back, no request lost",
        f"{BACK}::test_link_switched_and_the_run_after_the_repair_deploys",
    ),
    "session API 500": Fault(
        "a release that answers 500 to whoever opens a session (lab/faults/session-500)",
        "healthcheck",
        "rolled_back",
        ("session: POST /api/inspections/sessions", "got 500"),
        "everything as before; 25 rows returned, every instance went back, no request lost",
        "tests/deploy/test_secrets.py::test_the_failing_run_goes_back",
    ),
    "monitoring API 500": Fault(
        "a release that answers 500 to the monitoring of duplicates (lab/variants/monitoring-500)",
        "healthcheck",
        "rolled_back",
        ("monitoring: GET /api/monitoring/duplicate-sessions got 500", "new in this release: the one before did not"),
        "everything as before; every instance went back, no request lost",
        f"{RELEASES}[monitoring API 500]",
    ),
    "monitoring API 500, there before": Fault(
        "the same, of the release that runs and of the new one; healthcheck_known_faults accepts it",
        None,
        "deployed",
        ("Known fault, there before this deployment: monitoring", "qualify each column"),
        "the rule: deployed; the fault is reported once, with what to repair, and no request lost",
        f"{KNOWN}[monitoring API 500, there before]",
    ),
    "monitoring API 500, repaired": Fault(
        "the same, of the release that runs only",
        None,
        "deployed",
        (),
        "the rule: deployed; the report calls the fault repaired",
        f"{KNOWN}[monitoring API 500, there before]",
    ),
    "race losers 500": Fault(
        "a release whose losers of a race get 500 instead of 409 (lab/variants/race-500)",
        "healthcheck",
        "rolled_back",
        ("race: 16 x POST /api/inspections/sessions at once got", "new in this release: the one before did not"),
        "everything as before; every instance went back, no request lost",
        f"{RELEASES}[race losers 500]",
    ),
    "race losers 500, there before": Fault(
        "the same, of the release that runs and of the new one; healthcheck_known_faults accepts it",
        None,
        "deployed",
        ("Known fault, there before this deployment: race", "Prisma P2002"),
        "the rule: deployed, with one winner in each race; the fault is reported once, and no request lost",
        f"{KNOWN}[race losers 500, there before]",
    ),
    "polling page": Fault(
        "a page polls the broken monitoring and each poll writes an error line (lab/variants/polling-page)",
        "healthcheck",
        "rolled_back",
        ("ERROR monitoring: column reference",),
        "everything as before; every instance went back, no request lost",
        f"{RELEASES}[polling page]",
    ),
    "polling page, there before": Fault(
        "the same, of the release that runs and of the new one; healthcheck_known_faults accepts the monitoring's 500",
        None,
        "deployed",
        ("Known fault, there before this deployment: monitoring",),
        "the rule: deployed; lines that were written at this rate before are no error of the new release",
        f"{KNOWN}[polling page, there before]",
    ),
    "error lines in the log": Fault(
        "a release that answers well and writes an error for each request (lab/faults/log-errors)",
        "healthcheck",
        "rolled_back",
        ("ERROR log-errors: no template", "log: none that matches"),
        "everything as before; every instance went back, no request lost",
        f"{RELEASES}[error lines in the log]",
    ),
    "noisy old release": Fault(
        "a release that serves and writes an error for each request until it is gone (lab/faults/noisy-and-slow)",
        None,
        "deployed",
        (),
        "the rule: deployed, because the lines are not the new release's",
        f"{NOISY}::test_the_release_that_fixes_it_is_deployed",
    ),
    "new error line in a merged log": Fault(
        "lab/faults/log-errors on top of a release that is noisy with another error, all instances in one log",
        "healthcheck",
        "rolled_back",
        ("ERROR log-errors: no template", "log: none that matches"),
        "everything as before; every instance went back",
        f"{NOISY}::test_a_new_error_line_is_found_among_the_noise",
    ),
    "service slowed to 20 requests a second": Fault(
        "a release that serves and blocks for 100 ms at each request, with two instances (lab/faults/noisy-and-slow)",
        None,
        "deployed",
        (),
        "the rule: deployed; the probe sends a third of what one client gets answered, and no request is lost",
        f"{NOISY}::test_the_release_that_fixes_it_is_deployed",
    ),
    "duplicate reborn": Fault(
        "somebody drops the fence's index after the clean-up, and a duplicate is committed",
        None,
        "deployed",
        (),
        "the rule: the index's build meets the duplicate, which is archived and removed with 26 rows in all",
        "tests/deploy/test_secrets.py::test_the_run_that_meets_a_reborn_duplicate_deploys",
    ),
    "invalid index": Fault(
        "a concurrent build over a duplicate leaves its half-built index behind",
        "verify",
        "stopped",
        ("idx_inspection_sessions_active_session_per_equipment", "invalid"),
        "what was there: a single phase changes nothing",
        "tests/deploy/test_stops.py::test_verify_stops_at_an_invalid_index",
    ),
    "failed Prisma history": Fault(
        "the row of an earlier migration says that it failed (P3009)",
        "prepare",
        "stopped",
        ("earlier_failed", "20250915_add_inspection_schedules"),
        "nothing was touched: it stops before a row is removed",
        f"{STOPS}[failed Prisma history]",
    ),
    "lock held": Fault(
        "another session holds a lock on the table for as long as the migration tries",
        "migrate",
        "rolled_back",
        ("lock",),
        "everything as before: 25 rows returned; the application was not touched",
        f"{BACK}::test_rows_removed[lock held]",
    ),
    "lock held on the second table": Fault(
        "another session holds a lock on inspection_schedules, after the rule's index, longer than migrate_deadline_s",
        "migrate",
        "rolled_back",
        ("aedpics.inspection_schedules", "migrate_deadline_s", "pid ", "idle in transaction", "from 127.0.0.1"),
        "everything as before: 25 rows returned, the built index dropped, the failed row in Prisma's history marked",
        f"{BACK}::test_rows_removed[lock held on the second table]",
    ),
    "migration that does more": Fault(
        "a migration.sql that also adds a column (lab/faults/migration-does-more), with migrate_strategy=concurrent",
        "prepare",
        "stopped",
        ("cannot be built concurrently", "statement 8 begins with ALTER TABLE", "migrate_strategy=prisma"),
        "nothing was touched: it stops before a row is removed, by --check as well",
        f"{STOPS}[migration that does more]",
    ),
    "replica instead of primary": Fault(
        "database_port of a streaming standby, made by pg_basebackup",
        None,
        None,
        ("takes no writes", "the primary"),
        "nothing was touched: no run was opened",
        f"{STOPS}[replica instead of primary]",
    ),
    "disk nearly full": Fault(
        "release_min_free_mb above what is free where the releases are",
        "prepare",
        "stopped",
        ("The disk of", "MB left", "release_min_free_mb"),
        "nothing was touched; nothing of the release was fetched",
        f"{STOPS}[disk nearly full]",
    ),
    "origin unreachable": Fault(
        "app_origin at an address where nobody listens, with a token in it",
        None,
        None,
        ("The origin http://***@127.0.0.1:1/aedpics.git cannot be asked",),
        "nothing was touched: no run was opened",
        f"{STOPS}[origin unreachable]",
    ),
    "notification endpoint down": Fault(
        "Slack at an address where nobody listens, the webhook at one that takes the connection and says nothing",
        None,
        "deployed",
        ("Notification by slack was not delivered: no answer", "Notification by webhook was not delivered: no answer"),
        "the rule: deployed as ever; all messages together waited at most 5 s",
        "tests/deploy/test_secrets.py::test_notification_endpoints_that_are_down_fail_nothing",
    ),
    "hosts with different builds": Fault(
        "an application without generateBuildId or a key for server actions, which each of three hosts builds",
        "prepare",
        "stopped",
        (
            "host-2 would serve build",
            "host-3 would serve build",
            "Expected: one build on every host",
            "release_build=once",
        ),
        "nothing that serves was touched; the same command with release_build=once replaces the builds and deploys",
        f"{ONE_BUILD}::test_every_host_serves_one_build",
    ),
    "other Node major on a host": Fault(
        "one of three hosts whose node says that it is version 18",
        "prepare",
        "stopped",
        ("host-2 has Node.js 18", "host-1, where the release is built, has Node.js", "release_build=each"),
        "nothing was touched; nothing was fetched, built or shipped",
        f"{ONE_BUILD}::test_a_host_with_another_node_is_named_before_anything_is_built",
    ),
    "host lost in the middle": Fault(
        "the connection to the host ends once the rows are removed (tests/deploy/lost/losing.py)",
        None,
        None,
        (),
        "25 rows in the archive, the fence up, the run open; the next start takes it over at once and takes it back",
        "tests/deploy/test_injected_faults.py::test_a_host_that_is_lost_in_the_middle",
    ),
    "row that cannot return": Fault(
        "what archived rows refer to is deleted before the way back, their key is taken, or a constraint was added",
        None,
        None,
        ("cannot return", "rejects them"),
        "the other rows are back; these are in the archive, named with the constraint, by --check as well",
        f"{RETURN}::TestWhatCannotReturn::test_who_refers_to_a_row_that_is_gone",
    ),
    "trigger that changes returning rows": Fault(
        "a BEFORE INSERT trigger stamps updated_at, raises an error or returns NULL for some of the returning rows",
        None,
        None,
        ("cannot return", "would not come back as archived"),
        "the other rows are back; these are in the archive, named with the column or the function, by --check as well",
        f"{RETURN}::TestWhatCannotReturn::test_what_a_trigger_stamps",
    ),
    "restore killed between two batches": Fault(
        "the run is taken over while its rows return in batches",
        None,
        None,
        ("were back by then",),
        "whole batches are back; the next call puts back the rest",
        f"{RETURN}::TestBatches::test_stopped_between_two_the_next_call_goes_on",
    ),
    "soft-delete trigger": Fault(
        "a BEFORE DELETE trigger that updates the row's status and returns NULL, named by the plan",
        "prepare",
        "stopped",
        ("did not go", "trigger meddle"),
        "nothing was touched: it stops before a row is removed, by --check as well",
        f"{REAL}::test_a_trigger_that_bars_the_way_stops_the_run[soft-delete trigger]",
    ),
    "stamping trigger": Fault(
        "a BEFORE INSERT OR UPDATE trigger that stamps updated_at, named by the plan",
        "prepare",
        "stopped",
        ("updated_at would not come back as archived",),
        "nothing was touched: it stops before a row is removed, by --check as well",
        f"{REAL}::test_a_trigger_that_bars_the_way_stops_the_run[stamping trigger]",
    ),
    "trigger that writes to another table": Fault(
        "an AFTER DELETE trigger that deletes rows of another table, named by the plan without that table",
        "prepare",
        "stopped",
        ("triggers write to",),
        "nothing was touched: it stops before a row is removed, by --check as well",
        f"{REAL}::test_a_trigger_that_bars_the_way_stops_the_run[trigger that writes to another table]",
    ),
    "trigger that writes for few rows": Fault(
        "the same, where none of the rows that prepare tries has such rows",
        "cleanup",
        "stopped",
        ("triggers write to aedpics.inspections",),
        "nothing was touched: the batch is taken back before it commits, and the fence goes",
        f"{REAL}::test_what_only_a_row_outside_the_sample_sets_off_stops_the_clean_up",
    ),
    "reader who stays": Fault(
        "an idle session that has read the table, and a snapshot with a lock on every table, open all along",
        None,
        "deployed",
        ("was not dropped within", "the next run drops it"),
        "the rule: deployed; the fence refuses what the index refuses, the monitor names it, the next run drops it",
        f"{REAL}::test_readers_who_stay_and_a_bulk_insert_under_the_fence",
    ),
    "reader who stays, on the way back": Fault(
        "the same, while another session's lock makes the migration fail",
        "migrate",
        "rolled_back",
        ("lock",),
        "everything as before: 25 rows returned under the fence, which the next run drops",
        f"{REAL}::test_readers_who_stay_keep_no_run_from_going_back",
    ),
    "bulk insert under the fence": Fault(
        "100,000 rows by one statement while the fence is up, then 1,001 rows with a duplicate among them",
        None,
        "deployed",
        (),
        "the rule: deployed; the 100,000 rows are in the table, none of the 1,001 is (23505)",
        f"{REAL}::test_readers_who_stay_and_a_bulk_insert_under_the_fence",
    ),
    "trigger that writes on the way back": Fault(
        "an AFTER INSERT trigger that inserts into another table, empties it or updates another row, for one row only",
        None,
        None,
        ("cannot return", "triggers write to"),
        "the other rows are back; this one is in the archive, named with what is written, by --check as well",
        "tests/database/test_accounting.py::TestWhatIsWrittenToOtherRows"
        "::test_a_row_with_which_others_are_written_does_not_return[inserted]",
    ),
    "failover with loss between two connections": Fault(
        "a standby, made by pg_basebackup, that is promoted without the commits of the last phases",
        "verify",
        "stopped",
        ("cannot be closed: phase migrate is not in its journal", "opened on timeline 1, and timeline 2 answers"),
        "what the new primary has, with the release that serves; nothing is taken back, and the same command goes on",
        "tests/database/test_moved_back.py::test_a_standby_promoted_without_the_last_phases_is_never_deployed[cleanup]",
    ),
    "schema of somebody else": Fault(
        "a role that may create schemas has made at_most_one first, with triggers on its tables",
        None,
        None,
        ("Somebody else has a hand in the schema at_most_one",),
        "nothing was touched: no run was opened, and nothing of theirs has run",
        "tests/database/test_own_schema_trust.py::test_a_squatters_schema_runs_nothing_and_is_named",
    ),
    "publication for all tables": Fault(
        "a publication FOR ALL TABLES, and a real subscription to it from another database",
        None,
        None,
        ("is FOR ALL TABLES",),
        "nothing was touched: no run was opened; with the service's schema published instead it deploys",
        f"{REAL}::test_a_subscriber_of_all_tables_stays_alive",
    ),
}
