-- At most one active or paused session per equipment. Existing duplicates must be gone before: this stops on the first one.
SET search_path = aedpics;

-- The rule.
DROP INDEX IF EXISTS idx_inspection_sessions_active_session_per_equipment;

CREATE UNIQUE INDEX idx_inspection_sessions_active_session_per_equipment
  ON inspection_sessions(equipment_serial)
  WHERE status IN ('active', 'paused');

-- Monitoring of schedules: by equipment and date, and the same without the cancelled ones.
DROP INDEX IF EXISTS idx_inspection_schedules_equipment_date;

CREATE INDEX idx_inspection_schedules_equipment_date
  ON inspection_schedules(aed_data_id, scheduled_for);

DROP INDEX IF EXISTS idx_inspection_schedules_active;

CREATE INDEX idx_inspection_schedules_active
  ON inspection_schedules(aed_data_id, scheduled_for)
  WHERE status NOT IN ('cancelled');

-- Whoever builds the indexes beside the writers cannot do this for Prisma.
ALTER TABLE inspection_schedules ADD COLUMN reviewed_at timestamptz;
