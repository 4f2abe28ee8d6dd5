-- What the second plan cleans up (plans/one-valid-inspection-per-day.yml): 8 groups of valid inspection records of one
-- equipment on one day, 12 of them surplus; beside them records that are superseded or cancelled already, the same
-- equipment on another day and another equipment on the same day. Every id is fixed; a second run adds nothing.
--   psql "$DATABASE_URL" -f lab/sql/second-rule.sql
WITH device AS (
    SELECT equipment_serial AS serial, row_number() OVER (ORDER BY equipment_serial) AS number
    FROM aedpics.aed_data WHERE equipment_serial LIKE '22-%' ORDER BY equipment_serial LIMIT 10
), record AS (
    -- Devices 1 to 4 have three valid records of the day, 5 to 8 two, 9 and 10 one. The last one written stays; the two
    -- of device 8 were written in the same instant, so there the lower id stays.
    SELECT serial, number, n, date '2025-11-24' AS day,
        CASE WHEN mod(n, 2) = 0 THEN 'pass' ELSE 'pending' END AS status,
        timestamptz '2025-11-24 01:00:00+00' + interval '1 hour' * (CASE number WHEN 8 THEN 1 ELSE n END) AS written
    FROM device CROSS JOIN LATERAL generate_series(1, CASE WHEN number <= 4 THEN 3 WHEN number <= 8 THEN 2 ELSE 1 END) AS n
    UNION ALL -- Written later than all of these and not valid any more: they are no candidates and keep nobody.
    SELECT serial, number, 10 + n, date '2025-11-24', (ARRAY['superseded', 'cancelled'])[n], timestamptz '2025-11-24 12:00:00+00'
    FROM device CROSS JOIN generate_series(1, 2) AS n WHERE number IN (1, 5, 9)
    UNION ALL
    SELECT serial, number, 20, date '2025-11-25', 'pass', timestamptz '2025-11-25 01:00:00+00' FROM device
)
INSERT INTO aedpics.inspections (id, session_id, equipment_serial, inspector_id, inspection_date, overall_status, created_at)
SELECT md5('record ' || serial || ' ' || n)::uuid, NULL, serial, '00000000-0000-4000-8000-000000000002', day, status, written
FROM record
ON CONFLICT (id) DO NOTHING;
