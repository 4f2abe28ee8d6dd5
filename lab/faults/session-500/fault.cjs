// The fault: whoever opens a session gets 500.
const { Server } = require("node:http");

const { emit } = Server.prototype;
Server.prototype.emit = function (event, ...given) {
  const [request, response] = given;
  if (event !== "request" || request.method !== "POST" || request.url !== "/api/inspections/sessions") {
    return emit.call(this, event, ...given);
  }
  response.writeHead(500, { "content-type": "application/json" });
  response.end('{"success":false,"error":"session-500: not today"}');
  return true;
};
