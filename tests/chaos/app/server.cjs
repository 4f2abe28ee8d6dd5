// The lightest service that can be deployed: it names its build and its process and ends when PM2 asks it to.
const http = require("node:http");
const fs = require("node:fs");
const path = require("node:path");

const commit = fs.readFileSync(path.join(__dirname, ".next", "BUILD_ID"), "utf8").trim();
const server = http.createServer((request, response) => {
  response.setHeader("x-app-commit", commit);
  response.setHeader("x-app-pid", process.pid);
  response.end(JSON.stringify({ status: "healthy", commit }));
});
process.on("SIGINT", () => server.close(() => setTimeout(() => process.exit(0), 50)));
const trial = process.argv.indexOf("--port");
server.listen(Number(trial > 0 ? process.argv[trial + 1] : process.env.PORT), "127.0.0.1");
