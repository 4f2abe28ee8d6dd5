// A light service for the hosts of a test: it names its build and its process, and serves the assets that its release had
// when it started, as `next start` does. It ends through the lab application's drain.
const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");

const here = __dirname;
const commit = fs.readFileSync(path.join(here, ".next/commit"), "utf8");
const build = fs.readFileSync(path.join(here, ".next/BUILD_ID"), "utf8");
const actions = JSON.parse(fs.readFileSync(path.join(here, ".next/server/server-reference-manifest.json"), "utf8")).node;
const faults = path.join(here, "fault.json");
const fault = fs.existsSync(faults) ? JSON.parse(fs.readFileSync(faults, "utf8"))[process.env.HOST_NAME] : undefined;
if (fault === "crash at boot") throw new Error(`crash at boot on ${process.env.HOST_NAME}`);

const statics = path.join(here, ".next/static");
const assets = new Map(
  fs
    .readdirSync(statics, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.join(entry.parentPath ?? entry.path, entry.name))
    .map((file) => [`/_next/static/${path.relative(statics, file)}`, fs.readFileSync(file)]),
);

const server = http.createServer((request, response) => {
  response.setHeader("x-app-commit", commit);
  response.setHeader("x-app-pid", process.pid);
  response.setHeader("x-app-host", process.env.HOST_NAME);
  if (request.url.startsWith("/_next/")) {
    response.statusCode = assets.has(request.url) ? 200 : 404;
    response.end(assets.get(request.url));
    return;
  }
  if (request.headers["next-action"]) {
    response.statusCode = request.headers["next-action"] in actions ? 200 : 404;
    response.end(response.statusCode === 404 ? "Failed to find Server Action" : "done");
    return;
  }
  const answer = JSON.stringify({ build, status: fault === "not well" ? "unhealthy" : "ok", commit });
  if (fault === "slow") setTimeout(() => response.end(answer), 60_000);
  else response.end(answer);
});

import(path.join(here, "drain.mjs")).then(({ drainOnClose }) => {
  drainOnClose();
  server.listen(Number(process.env.PORT), process.env.HOST_ADDRESS);
});
process.on("SIGINT", () => server.close(() => process.exit(0)));
