#!/usr/bin/env node
// Prisma's schema engine, without its native binary: the command line starts what PRISMA_SCHEMA_ENGINE_BINARY names and speaks
// JSON-RPC with it, a message a line. Here the same engine of the same version answers, compiled to WebAssembly, and reaches
// the database through the pg driver.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { bindMigrationAwareSqlAdapterFactory } from "@prisma/driver-adapter-utils";
import { migrationAdapter } from "../lib/migration-adapter.mjs";

// strict: false lets options pass that this engine has no use for.
const { values: given, positionals } = parseArgs({
  strict: false,
  allowPositionals: true,
  options: { datamodels: { type: "string", multiple: true }, datasource: { type: "string" } },
});
const adapters = migrationAdapter(JSON.parse(given.datasource).url);

/** Whether the database can be reached: exit code 0, or 1 and the reason in a line of the engine's log. */
async function canConnect() {
  try {
    await (await adapters.connect()).dispose();
    return 0;
  } catch (error) {
    const fields = { error_code: error.cause?.originalCode ?? "P1001", message: error.cause?.originalMessage ?? error.message };
    process.stderr.write(`\n${JSON.stringify({ level: "ERROR", target: "schema_engine::logger", fields })}\n`);
    return 1;
  }
}

async function startEngine() {
  const location = createRequire(import.meta.url).resolve("@prisma/schema-engine-wasm/schema_engine_bg");
  const bindings = await import(pathToFileURL(location));
  const { instance } = await WebAssembly.instantiate(readFileSync(location.replace(/\.js$/, ".wasm")), {
    "./schema_engine_bg.js": bindings,
  });
  bindings.__wbg_set_wasm(instance.exports);
  instance.exports.__wbindgen_start();
  const datamodels = given.datamodels?.map((path) => [path, readFileSync(path, "utf8")]);
  return bindings.SchemaEngine.new({ datamodels }, () => {}, bindMigrationAwareSqlAdapterFactory(adapters));
}

const say = (message) => process.stdout.write(`${JSON.stringify({ jsonrpc: "2.0", ...message })}\n`);

/** Answer each request in turn, until the command line closes its end. */
async function serve() {
  let panic;
  globalThis.PRISMA_WASM_PANIC_REGISTRY = { set_message: (message) => (panic = message) };
  const engine = startEngine();
  engine.catch(() => {}); // the first request reports it
  for await (const line of createInterface({ input: process.stdin })) {
    const { id, method, params } = JSON.parse(line);
    if (method === undefined) continue; // the command line's receipt for a `print`
    try {
      const result = (await (await engine)[method](params)) ?? {};
      if (method === "diff" && result.stdout) say({ id: `print-${id}`, method: "print", params: { content: result.stdout } });
      say({ id, result });
    } catch (error) {
      const data = { is_panic: panic !== undefined, message: panic ?? error.message, error_code: error.code, meta: error.meta };
      say({ id, error: { code: 4466, message: "An error happened. Check the data field for details.", data } });
    }
  }
}

if (positionals.at(-1) === "can-connect-to-database") process.exitCode = await canConnect();
else await serve();
