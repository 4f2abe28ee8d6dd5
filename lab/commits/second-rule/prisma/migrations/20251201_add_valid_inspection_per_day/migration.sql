-- At most one valid inspection record per equipment and day. Existing duplicates must be superseded before.
CREATE UNIQUE INDEX "idx_inspections_valid_per_equipment_and_day"
    ON "aedpics"."inspections" ("equipment_serial", "inspection_date")
    WHERE "overall_status" NOT IN ('superseded', 'cancelled');
