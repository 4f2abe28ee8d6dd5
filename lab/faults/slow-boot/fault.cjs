// The fault: this build needs five minutes before it answers anything.
const { Server } = require("node:http");

const { emit } = Server.prototype;
const ready = Date.now() + 300_000;
Server.prototype.emit = function (event, ...given) {
  if (event !== "request" || Date.now() >= ready) return emit.call(this, event, ...given);
  setTimeout(() => emit.call(this, event, ...given), ready - Date.now()).unref();
  return true;
};
