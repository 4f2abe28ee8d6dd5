// Prisma 7 takes the database's address from here, and has one engine for migrations: a native binary, which many networks
// cannot fetch. scripts/schema-engine.mjs is the same engine without it.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { defineConfig } from "prisma/config";

// With a configuration file Prisma reads no settings by itself. What is exported wins over the file. `generate` needs no database.
const envFile = join(__dirname, ".env.production");
if (existsSync(envFile)) process.loadEnvFile(envFile);
process.env.PRISMA_SCHEMA_ENGINE_BINARY ||= join(__dirname, "scripts/schema-engine.mjs");

export default defineConfig({
  schema: "prisma/schema.prisma",
  datasource: { url: process.env.DATABASE_URL || "postgresql://nobody@127.0.0.1:1/none" },
});
