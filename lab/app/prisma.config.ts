// `prisma migrate deploy`, `migrate status` and `generate` without native engines: the JavaScript engine talks through the pg
// driver. Prisma 6.19 calls this experimental; @prisma/adapter-pg must be of the same version as the command line.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { PrismaPg } from "@prisma/adapter-pg";
import { defineConfig } from "prisma/config";
import { readDatabaseUrl } from "./lib/database-url.mjs";

// With a configuration file Prisma reads no settings by itself. What is exported wins over the file. `generate` needs no database, but
// takes a schema whose URL is unset for a broken one and asks for native engines: then this address of nobody will do.
const envFile = join(__dirname, ".env.production");
if (existsSync(envFile)) process.loadEnvFile(envFile);
process.env.DATABASE_URL ||= "postgresql://nobody@127.0.0.1:1/none";

// Two things would keep a finished command waiting for ten seconds: the timer with which the engine bounds its wait for the
// migration lock and never clears (here), and the idle connection of a pool that Prisma does not close (below). Neither has
// to keep this process alive: while work is pending, the busy connection does.
const LONG_TIMER_MS = 5_000;
const setTimeoutOfNode = globalThis.setTimeout;
globalThis.setTimeout = Object.assign((callback, delay, ...rest) => {
  const timer = setTimeoutOfNode(callback, delay, ...rest);
  if (delay >= LONG_TIMER_MS) timer.unref();
  return timer;
}, setTimeoutOfNode);

// The engine reads catalog columns of type `name`, for which the adapter has no reader. They are text in all but name.
const TYPE_NAME = 19;
const TYPE_TEXT = 25;

function withNamesAsText(queryable) {
  const performIO = queryable.performIO.bind(queryable);
  queryable.performIO = async (query) => {
    const result = await performIO(query);
    for (const field of result.fields ?? []) if (field.dataTypeID === TYPE_NAME) field.dataTypeID = TYPE_TEXT;
    return result;
  };
  if (queryable.startTransaction) {
    const startTransaction = queryable.startTransaction.bind(queryable);
    queryable.startTransaction = async (...given) => withNamesAsText(await startTransaction(...given));
  }
  return queryable;
}

class Adapter extends PrismaPg {
  async connect() {
    return withNamesAsText(await super.connect());
  }

  async connectToShadowDb() {
    return withNamesAsText(await super.connectToShadowDb());
  }
}

export default defineConfig({
  experimental: { adapter: true },
  engine: "js",
  schema: "prisma/schema.prisma",
  async adapter() {
    const { pool, schema } = readDatabaseUrl(process.env.DATABASE_URL);
    return new Adapter({ ...pool, max: 2, allowExitOnIdle: true }, { schema });
  },
});
