-- The guide's example: 10 equipments hold 35 open sessions, 25 of them surplus; 30 completed sessions are older than those and
-- 2 are newer; one more equipment has one open session and a history, and must come out untouched. Every id is fixed.

CREATE TEMP TABLE example_group (serial text PRIMARY KEY, open_sessions int, newer_completed boolean, has_unstarted boolean, has_tie boolean);
INSERT INTO example_group VALUES
    ('11-0010656', 3, false, false, false),
    ('11-0020731', 3, true,  false, false),
    ('11-0031184', 3, true,  false, false),
    ('11-0042095', 3, false, false, false),
    ('11-0053377', 3, false, false, true),
    ('11-0064419', 4, false, true,  false),
    ('11-0075562', 4, false, false, false),
    ('11-0086648', 4, false, false, false),
    ('11-0097713', 4, false, false, false),
    ('11-0108827', 4, false, false, false);

INSERT INTO aedpics.aed_data (equipment_serial, installation_institution, installation_address, created_at)
SELECT serial, '기관 ' || serial, '서울특별시 중구 ' || row_number() OVER (ORDER BY serial), '2025-01-01 00:00:00+00'
FROM (
    SELECT serial FROM example_group
    UNION ALL VALUES ('11-0000001'), ('11-0119935')
    UNION ALL SELECT '22-' || lpad(n::text, 7, '0') FROM generate_series(1, 28) AS n
) AS device
ORDER BY serial;

-- Session 1 of a group is the newest and stays. has_unstarted: its session 2 was never started (NULL comes last, it goes).
-- has_tie: its sessions 1 and 2 started in the same instant, so the lower id stays.
INSERT INTO aedpics.inspection_sessions
    (id, equipment_serial, inspector_id, status, current_step, started_at, paused_at, step_data, created_at, updated_at)
SELECT
    md5('open ' || serial || ' ' || n)::uuid,
    serial,
    ('00000000-0000-4000-8000-00000000000' || 2 + mod(n, 2))::uuid,
    (CASE WHEN mod(n, 3) = 2 THEN 'paused' ELSE 'active' END)::aedpics.session_status,
    n,
    CASE WHEN has_unstarted AND n = 2 THEN NULL ELSE started END,
    CASE WHEN mod(n, 3) = 2 THEN started + interval '20 minutes' END,
    jsonb_build_object('step', n, 'battery', 'ok'),
    started,
    started
FROM example_group
CROSS JOIN LATERAL generate_series(1, open_sessions) AS n
CROSS JOIN LATERAL (
    SELECT timestamptz '2025-11-08 14:30:00+00' - interval '1 hour' * (CASE WHEN has_tie AND n = 2 THEN 0 ELSE n - 1 END) AS started
) AS moment;

INSERT INTO aedpics.inspection_sessions
    (id, equipment_serial, inspector_id, status, current_step, started_at, completed_at, notes, created_at, updated_at)
SELECT
    md5('completed ' || serial || ' ' || n)::uuid,
    serial,
    '00000000-0000-4000-8000-000000000002',
    'completed',
    6,
    started,
    started + interval '40 minutes',
    '정기 점검',
    started,
    started + interval '40 minutes'
FROM example_group
CROSS JOIN LATERAL generate_series(0, 3) AS n
CROSS JOIN LATERAL (SELECT timestamptz '2025-11-09 09:00:00+00' - interval '30 days' * n AS started) AS moment
WHERE n > 0 OR newer_completed;

-- The control.
INSERT INTO aedpics.inspection_sessions
    (id, equipment_serial, inspector_id, status, current_step, started_at, completed_at, created_at, updated_at)
SELECT
    md5('control ' || n)::uuid,
    '11-0119935',
    '00000000-0000-4000-8000-000000000003',
    (CASE WHEN n = 0 THEN 'active' ELSE 'completed' END)::aedpics.session_status,
    6 - 4 * (n = 0)::int,
    started,
    CASE WHEN n > 0 THEN started + interval '40 minutes' END,
    started,
    started
FROM generate_series(0, 2) AS n
CROSS JOIN LATERAL (SELECT timestamptz '2025-11-08 10:00:00+00' - interval '30 days' * n AS started) AS moment;

INSERT INTO aedpics.inspections (id, session_id, equipment_serial, inspector_id, inspection_date, overall_status, created_at)
SELECT md5('inspection ' || id)::uuid, id, equipment_serial, inspector_id, completed_at::date, 'pass', completed_at
FROM aedpics.inspection_sessions
WHERE status = 'completed';

INSERT INTO aedpics.inspection_schedules (id, aed_data_id, assignee_id, scheduled_for, status, created_at, updated_at)
SELECT
    md5('schedule ' || equipment_serial || ' ' || n)::uuid,
    id,
    '00000000-0000-4000-8000-000000000002',
    timestamptz '2025-11-20 00:00:00+00' + interval '1 day' * n,
    (ARRAY['completed', 'cancelled', 'scheduled'])[n]::aedpics.schedule_status,
    '2025-11-01 00:00:00+00',
    '2025-11-01 00:00:00+00'
FROM aedpics.aed_data
CROSS JOIN generate_series(1, 3) AS n;

DROP TABLE example_group;
