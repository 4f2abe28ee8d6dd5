-- A larger example: as many more surplus sessions as wanted, two to a group (one in the last group of an odd number), each
-- group with one completed session besides. With 0 nothing is added.
INSERT INTO aedpics.aed_data (equipment_serial, installation_institution, created_at)
SELECT '77-' || lpad(g::text, 7, '0'), '기관 77', '2025-01-01 00:00:00+00'
FROM generate_series(1, (%(more)s + 1) / 2) AS g;

INSERT INTO aedpics.inspection_sessions (id, equipment_serial, inspector_id, status, current_step, started_at, completed_at, created_at, updated_at)
SELECT
    md5('more ' || g || ' ' || n)::uuid,
    '77-' || lpad(g::text, 7, '0'),
    ('00000000-0000-4000-8000-00000000000' || 2 + n / 2)::uuid,
    (ARRAY['completed', 'active', 'paused', 'active'])[n + 1]::aedpics.session_status,
    n,
    started,
    CASE WHEN n = 0 THEN started + interval '40 minutes' END,
    started,
    started
FROM generate_series(1, (%(more)s + 1) / 2) AS g
CROSS JOIN generate_series(0, 3) AS n
CROSS JOIN LATERAL (
    SELECT timestamptz '2025-11-08 14:30:00+00' - interval '1 minute' * (g - 1 + n) - interval '60 days' * (n = 0)::int AS started
) AS moment
WHERE NOT (n = 3 AND g * 2 > %(more)s);
