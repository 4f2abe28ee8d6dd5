// The fault: the monitoring of duplicates answers 500, as the guide's service does for a master administrator.
const { Server } = require("node:http");

const { emit } = Server.prototype;
Server.prototype.emit = function (event, ...given) {
  const [request, response] = given;
  if (event !== "request" || request.method !== "GET" || request.url !== "/api/monitoring/duplicate-sessions") {
    return emit.call(this, event, ...given);
  }
  response.writeHead(500, { "content-type": "application/json" });
  response.end('{"success":false,"error":"monitoring-500: not today"}');
  return true;
};
