// The fault: this build blocks its process for 100 ms for each request, so that two instances bear 20 requests a second, and
// writes an error for each.
const { Server } = require("node:http");

const { emit } = Server.prototype;
const never = new Int32Array(new SharedArrayBuffer(4));
Server.prototype.emit = function (event, ...given) {
  if (event === "request") {
    Atomics.wait(never, 0, 0, 100);
    console.error(`ERROR noisy-and-slow: no template for ${given[0].url}`);
  }
  return emit.call(this, event, ...given);
};
