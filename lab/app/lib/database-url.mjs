// DATABASE_URL as the pg driver wants it. Prisma's `?schema=`, libpq's `options=` and `sslmode=` may all stand in its query:
// the schema becomes the search_path, merged with the other options (`-c lock_timeout=2000` from a deployment, say).

/** @returns {{pool: import("pg").PoolConfig, schema: string}} */
export function readDatabaseUrl(text) {
  if (!text) throw new Error("DATABASE_URL is not set: the application's .env.production names its database.");
  const url = new URL(text);
  const options = url.searchParams.get("options") ?? "";
  const inOptions = /-c\s*search_path=(\S+)/.exec(options)?.[1];
  const schema = url.searchParams.get("schema") ?? inOptions ?? "public";
  return {
    schema,
    pool: {
      host: url.hostname,
      port: Number(url.port || 5432),
      database: decodeURIComponent(url.pathname.slice(1)),
      user: decodeURIComponent(url.username),
      password: decodeURIComponent(url.password),
      options: inOptions ? options : `${options} -c search_path=${schema}`.trim(),
      ssl: tls(url.searchParams.get("sslmode") ?? "prefer"),
    },
  };
}

// The driver cannot fall back: what libpq would merely prefer is plain here, and `require` checks no certificate, as in libpq.
function tls(mode) {
  if (["disable", "allow", "prefer"].includes(mode)) return false;
  return { rejectUnauthorized: mode.startsWith("verify-") };
}
