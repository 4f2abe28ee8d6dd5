CREATE TYPE "aedpics"."user_role" AS ENUM ('master', 'inspector');
CREATE TYPE "aedpics"."session_status" AS ENUM ('active', 'paused', 'completed', 'cancelled');

CREATE TABLE "aedpics"."user_profiles" (
    "id" UUID NOT NULL DEFAULT gen_random_uuid(),
    "email" TEXT NOT NULL,
    "full_name" TEXT NOT NULL,
    "role" "aedpics"."user_role" NOT NULL DEFAULT 'inspector',
    "password_hash" TEXT NOT NULL,
    "is_active" BOOLEAN NOT NULL DEFAULT true,
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT "user_profiles_pkey" PRIMARY KEY ("id")
);
CREATE UNIQUE INDEX "user_profiles_email_key" ON "aedpics"."user_profiles" ("email");

CREATE TABLE "aedpics"."aed_data" (
    "id" SERIAL NOT NULL,
    "equipment_serial" VARCHAR(255) NOT NULL,
    "installation_institution" TEXT,
    "installation_address" TEXT,
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT "aed_data_pkey" PRIMARY KEY ("id")
);
CREATE UNIQUE INDEX "aed_data_equipment_serial_key" ON "aedpics"."aed_data" ("equipment_serial");

CREATE TABLE "aedpics"."inspection_sessions" (
    "id" UUID NOT NULL DEFAULT gen_random_uuid(),
    "equipment_serial" VARCHAR(255) NOT NULL,
    "inspector_id" UUID NOT NULL,
    "status" "aedpics"."session_status" NOT NULL DEFAULT 'active',
    "current_step" INTEGER NOT NULL DEFAULT 0,
    "started_at" TIMESTAMPTZ(6) DEFAULT CURRENT_TIMESTAMP,
    "paused_at" TIMESTAMPTZ(6),
    "completed_at" TIMESTAMPTZ(6),
    "cancelled_at" TIMESTAMPTZ(6),
    "step_data" JSONB,
    "device_info" JSONB,
    "notes" TEXT,
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT "inspection_sessions_pkey" PRIMARY KEY ("id"),
    CONSTRAINT "inspection_sessions_inspector_id_fkey" FOREIGN KEY ("inspector_id")
        REFERENCES "aedpics"."user_profiles" ("id") ON DELETE NO ACTION ON UPDATE NO ACTION
);
CREATE INDEX "idx_inspection_sessions_equipment" ON "aedpics"."inspection_sessions" ("equipment_serial");
CREATE INDEX "idx_inspection_sessions_inspector" ON "aedpics"."inspection_sessions" ("inspector_id");
CREATE INDEX "idx_inspection_sessions_status" ON "aedpics"."inspection_sessions" ("status");
CREATE INDEX "idx_inspection_sessions_started_at" ON "aedpics"."inspection_sessions" ("started_at");
CREATE INDEX "idx_inspection_sessions_inspector_status" ON "aedpics"."inspection_sessions" ("inspector_id", "status");
CREATE INDEX "idx_inspection_sessions_updated_at" ON "aedpics"."inspection_sessions" ("updated_at");
CREATE INDEX "idx_inspection_sessions_completed_at" ON "aedpics"."inspection_sessions" ("completed_at");

CREATE TABLE "aedpics"."inspections" (
    "id" UUID NOT NULL DEFAULT gen_random_uuid(),
    "session_id" UUID,
    "equipment_serial" VARCHAR(255) NOT NULL,
    "inspector_id" UUID NOT NULL,
    "inspection_date" DATE NOT NULL,
    "overall_status" VARCHAR(50) NOT NULL DEFAULT 'pending',
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT "inspections_pkey" PRIMARY KEY ("id")
);
CREATE INDEX "idx_inspections_session" ON "aedpics"."inspections" ("session_id");
CREATE INDEX "idx_inspections_equipment" ON "aedpics"."inspections" ("equipment_serial");
CREATE INDEX "idx_inspections_inspector" ON "aedpics"."inspections" ("inspector_id");
CREATE INDEX "idx_inspections_date" ON "aedpics"."inspections" ("inspection_date");
CREATE INDEX "idx_inspections_status" ON "aedpics"."inspections" ("overall_status");
