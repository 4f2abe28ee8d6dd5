// A small real service for the tests: it names its build and its process, and ends gracefully when PM2 asks it to.
const http = require("node:http");
const behaviour = require("./behaviour.json");

if (behaviour.fault === "crash at boot") {
  throw new Error("boot: postgresql://app:s3cret@db.example/app has no such column");
}

// An error line now and then and for each request, until the very end of the process.
const complain = () => behaviour.noise && console.error(`ERROR ${behaviour.noise} ${Date.now()}`);
if (behaviour.noise) {
  setInterval(complain, 50);
  process.on("exit", () => require("node:fs").appendFileSync(behaviour.log, "ERROR at the end\n"));
}

const server = http.createServer((request, response) => {
  complain();
  response.setHeader("x-app-commit", behaviour.answers || behaviour.commit);
  response.setHeader("x-app-pid", process.pid);
  response.setHeader("x-app-colour", process.env.COLOUR || "none");
  if (request.url === "/stall") {
    const until = Date.now() + 700;
    while (Date.now() < until); // the event loop is blocked, as by a synchronous call in a real application
  }
  response.statusCode = request.method === "POST" ? 409 : 200;
  response.end(JSON.stringify({ status: "ok", commit: behaviour.commit }));
});

const listening = () => {
  if (behaviour.fault === "crash after boot") {
    setTimeout(() => {
      throw new Error("late: the first timer fired");
    }, 600);
  }
};

async function start() {
  if (behaviour.boot_ms) await new Promise((resolve) => setTimeout(resolve, behaviour.boot_ms));
  if (behaviour.drain) (await import(behaviour.drain)).drainOnClose(); // the lab's application's own
  server.listen(Number(process.env.PORT), "127.0.0.1", listening);
}

// "as next start": end when all connections have. Otherwise stay a moment longer: the daemon stops handing connections
// to a worker whose server is closed, and what is under way is answered first.
const linger_ms = behaviour.shutdown === "as next start" ? 0 : 50;
const end = () => (linger_ms ? setTimeout(() => process.exit(0), linger_ms) : process.exit(130));
process.on("SIGINT", () => server.close(end));
start();
