// As the real service does: an administrator's page polls the broken monitoring for as long as it is open. Each poll writes
// an error line, and the page goes on. The page is played by the process itself, so that nobody has to keep one open.
const http = require("node:http");

const PATH = "/api/monitoring/duplicate-sessions";
const PAUSE_MS = 500;

const { emit } = http.Server.prototype;
let polled = false;
http.Server.prototype.emit = function (event, ...given) {
  const [request, response] = given;
  // Next.js may load this when the server listens already: then the first request begins it.
  if (!polled && (event === "listening" || event === "request")) {
    polled = true;
    poll(this);
  }
  if (event !== "request" || request.method !== "GET" || request.url !== PATH) return emit.call(this, event, ...given);
  console.error('ERROR monitoring: column reference "equipment_serial" is ambiguous');
  response.writeHead(500, { "content-type": "application/json" });
  response.end('{"success":false,"error":"polling-page: not today"}');
  return true;
};

function poll(server) {
  const { address, port } = server.address();
  setInterval(() => {
    http.get({ host: address, port, path: PATH, agent: false }, (answer) => answer.resume()).on("error", () => {});
  }, PAUSE_MS).unref();
}
