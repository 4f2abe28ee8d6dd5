// `prisma migrate deploy`, `migrate status` and `generate` without native engines: the JavaScript engine talks through the pg
// driver. Prisma 6.19 calls this experimental; @prisma/adapter-pg must be of the same version as the command line.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { defineConfig } from "prisma/config";
import { migrationAdapter } from "./lib/migration-adapter.mjs";

// With a configuration file Prisma reads no settings by itself. What is exported wins over the file. `generate` needs no database, but
// takes a schema whose URL is unset for a broken one and asks for native engines: then this address of nobody will do.
const envFile = join(__dirname, ".env.production");
if (existsSync(envFile)) process.loadEnvFile(envFile);
process.env.DATABASE_URL ||= "postgresql://nobody@127.0.0.1:1/none";

export default defineConfig({
  experimental: { adapter: true },
  engine: "js",
  schema: "prisma/schema.prisma",
  adapter: async () => migrationAdapter(process.env.DATABASE_URL),
});
