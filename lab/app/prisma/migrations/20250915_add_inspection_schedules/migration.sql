CREATE TYPE "aedpics"."schedule_status" AS ENUM ('scheduled', 'in_progress', 'completed', 'cancelled');

CREATE TABLE "aedpics"."inspection_schedules" (
    "id" UUID NOT NULL DEFAULT gen_random_uuid(),
    "aed_data_id" INTEGER NOT NULL,
    "assignee_id" UUID,
    "scheduled_for" TIMESTAMPTZ(6) NOT NULL,
    "status" "aedpics"."schedule_status" NOT NULL DEFAULT 'scheduled',
    "notes" TEXT,
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT "inspection_schedules_pkey" PRIMARY KEY ("id"),
    CONSTRAINT "inspection_schedules_aed_data_id_fkey" FOREIGN KEY ("aed_data_id")
        REFERENCES "aedpics"."aed_data" ("id") ON DELETE NO ACTION ON UPDATE NO ACTION,
    CONSTRAINT "inspection_schedules_assignee_id_fkey" FOREIGN KEY ("assignee_id")
        REFERENCES "aedpics"."user_profiles" ("id") ON DELETE NO ACTION ON UPDATE NO ACTION
);
CREATE INDEX "idx_inspection_schedules_equipment" ON "aedpics"."inspection_schedules" ("aed_data_id");
CREATE INDEX "idx_inspection_schedules_assignee" ON "aedpics"."inspection_schedules" ("assignee_id");
CREATE INDEX "idx_inspection_schedules_status" ON "aedpics"."inspection_schedules" ("status");
CREATE INDEX "idx_inspection_schedules_scheduled_for" ON "aedpics"."inspection_schedules" ("scheduled_for");

CREATE TABLE "aedpics"."inspection_photos" (
    "id" UUID NOT NULL DEFAULT gen_random_uuid(),
    "inspection_id" UUID NOT NULL,
    "object_key" TEXT NOT NULL,
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT "inspection_photos_pkey" PRIMARY KEY ("id"),
    CONSTRAINT "inspection_photos_inspection_id_fkey" FOREIGN KEY ("inspection_id")
        REFERENCES "aedpics"."inspections" ("id") ON DELETE CASCADE ON UPDATE NO ACTION
);
CREATE INDEX "idx_inspection_photos_inspection" ON "aedpics"."inspection_photos" ("inspection_id");
