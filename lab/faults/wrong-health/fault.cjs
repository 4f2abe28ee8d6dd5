// The fault: this build boots, answers with 200, but says of itself that it is not well.
const { Server } = require("node:http");

const { emit } = Server.prototype;
Server.prototype.emit = function (event, ...given) {
  const [request, response] = given;
  if (event !== "request" || request.url !== "/api/health") {
    return emit.call(this, event, ...given);
  }
  response.writeHead(200, { "content-type": "application/json" });
  response.end('{"status":"degraded"}');
  return true;
};
