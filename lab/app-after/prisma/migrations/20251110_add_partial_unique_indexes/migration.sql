-- At most one active or paused session per equipment. Existing duplicates must be gone before: this stops on the first one.
CREATE UNIQUE INDEX "idx_inspection_sessions_active_session_per_equipment"
    ON "aedpics"."inspection_sessions" ("equipment_serial")
    WHERE "status" IN ('active', 'paused');

-- Monitoring of schedules.
CREATE INDEX "idx_inspection_schedules_equipment_date"
    ON "aedpics"."inspection_schedules" ("aed_data_id", "scheduled_for");

CREATE INDEX "idx_inspection_schedules_active"
    ON "aedpics"."inspection_schedules" ("aed_data_id", "scheduled_for")
    WHERE "status" NOT IN ('cancelled');
