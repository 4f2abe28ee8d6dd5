// A small real service for the tests: it names its build and its process, and ends gracefully when PM2 asks it to.
const http = require("node:http");
const behaviour = require("./behaviour.json");

if (behaviour.fault === "crash at boot") {
  throw new Error("boot: postgresql://app:s3cret@db.example/app has no such column");
}

const server = http.createServer((request, response) => {
  response.setHeader("x-app-commit", behaviour.answers || behaviour.commit);
  response.setHeader("x-app-pid", process.pid);
  if (request.url === "/stall") {
    const until = Date.now() + 700;
    while (Date.now() < until); // the event loop is blocked, as by a synchronous call in a real application
  }
  response.end(JSON.stringify({ status: "ok", commit: behaviour.commit }));
});

server.listen(Number(process.env.PORT), "127.0.0.1", () => {
  if (behaviour.fault === "crash after boot") {
    setTimeout(() => {
      throw new Error("late: the first timer fired");
    }, 600);
  }
});

// The primary stops handing connections to a worker whose server is closed; those under way are answered first.
process.on("SIGINT", () => server.close(() => setTimeout(() => process.exit(0), 50)));
