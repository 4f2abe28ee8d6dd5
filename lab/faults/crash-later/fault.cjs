// The fault: this build boots, answers, and ends two seconds after its first request.
const { Server } = require("node:http");

const { emit } = Server.prototype;
let asked = false;
Server.prototype.emit = function (event, ...given) {
  if (event === "request" && !asked) {
    asked = true;
    setTimeout(() => {
      console.error("ERROR crash-later: this build does not last");
      process.exit(1);
    }, 2_000);
  }
  return emit.call(this, event, ...given);
};
