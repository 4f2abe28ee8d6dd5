// As `next start` serves a build: its id is in the page, and the static files are those that were there when it started.
// Nothing names the build or the process. With behaviour.rewrite the application hands out what the link leads to.
const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");
const behaviour = require("./behaviour.json");

const own = path.join(process.cwd(), ".next");
const id = fs.readFileSync(path.join(own, "BUILD_ID"), "utf8").trim();
const files = new Set(fs.readdirSync(path.join(own, "static"), { recursive: true }));
const flight = JSON.stringify(`0:{"P":null,"b":"${id}"}`);

const server = http.createServer((request, response) => {
  if (request.url === "/" && behaviour.page !== false) {
    return response.end(`<!DOCTYPE html><script>self.__next_f.push([1,${flight}])</script>`);
  }
  if (request.url.startsWith("/_next/static/")) {
    const name = request.url.slice("/_next/static/".length);
    const known = files.has(name) || (behaviour.rewrite && fs.existsSync(path.join(behaviour.cwd, ".next/static", name)));
    response.statusCode = known ? 200 : 404;
    return response.end();
  }
  response.statusCode = request.url === "/health" ? 200 : 404;
  response.end('{"status":"ok"}');
});
process.on("SIGINT", () => server.close(() => setTimeout(() => process.exit(0), 50)));
server.listen(Number(process.env.PORT), "127.0.0.1");
