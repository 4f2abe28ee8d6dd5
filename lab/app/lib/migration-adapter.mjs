// The pg driver as Prisma's schema engine wants it, which here runs as JavaScript: in prisma.config.ts with Prisma 6, in
// scripts/schema-engine.mjs with Prisma 7.
import { PrismaPg } from "@prisma/adapter-pg";
import { readDatabaseUrl } from "./database-url.mjs";

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

// The engine reads catalog columns of the types `"char"` and `name`, for which the adapter has no reader. They are text in
// all but name.
const TEXT_BY_ANOTHER_NAME = [18, 19];
const TYPE_TEXT = 25;

function withCatalogAsText(queryable) {
  const performIO = queryable.performIO.bind(queryable);
  queryable.performIO = async (query) => {
    const result = await performIO(query);
    for (const field of result.fields ?? []) if (TEXT_BY_ANOTHER_NAME.includes(field.dataTypeID)) field.dataTypeID = TYPE_TEXT;
    return result;
  };
  if (queryable.startTransaction) {
    const startTransaction = queryable.startTransaction.bind(queryable);
    queryable.startTransaction = async (...given) => withCatalogAsText(await startTransaction(...given));
  }
  return queryable;
}

class Adapter extends PrismaPg {
  async connect() {
    return withCatalogAsText(await super.connect());
  }

  async connectToShadowDb() {
    return withCatalogAsText(await super.connectToShadowDb());
  }
}

/** The adapter for the database of this address. */
export function migrationAdapter(address) {
  const { pool, schema } = readDatabaseUrl(address);
  return new Adapter({ ...pool, max: 2, allowExitOnIdle: true }, { schema });
}
