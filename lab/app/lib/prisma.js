import { PrismaPg } from "@prisma/adapter-pg";
import { PrismaClient } from "@prisma/client";
import { readDatabaseUrl } from "./database-url.mjs";

function open() {
  const { pool, schema } = readDatabaseUrl(process.env.DATABASE_URL);
  return new PrismaClient({
    adapter: new PrismaPg({ ...pool, max: 8, connectionTimeoutMillis: 2_000 }, { schema }),
    log: [],
  });
}

let client;

/** One client per process, opened at the first question: a build needs no database. */
export function prisma() {
  client ??= open();
  return client;
}
