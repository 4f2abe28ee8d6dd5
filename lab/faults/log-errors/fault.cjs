// The fault: this build answers well and writes an error for each request that it has answered.
const { Server } = require("node:http");

const { emit } = Server.prototype;
Server.prototype.emit = function (event, ...given) {
  if (event === "request") console.error(`ERROR log-errors: no template for ${given[0].url}`);
  return emit.call(this, event, ...given);
};
