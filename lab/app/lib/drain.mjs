// PM2 ends a worker by SIGINT, upon which `next start` calls server.close() and exits when that is done. Node's close()
// loses requests in two ways:
//   * it destroys every idle keep-alive connection, also one on which the client is just sending;
//   * with no connection open it is done at once, and the process exits with a connection in its mailbox that PM2's
//     daemon had handed to it a moment before.
// So connections are told to go ("Connection: close") instead of being cut, and the process stays a moment longer: what
// comes into its mailbox meanwhile goes back to the daemon, which gives it to another worker.
import http from "node:http";
import net from "node:net";

const LINGER_MS = 500;
// Below kill_timeout in ecosystem.config.cjs. A connection that was silent for so long is nobody's who clicks.
const DRAIN_MS = Number(process.env.APP_DRAIN_MS ?? 4_000);

export function drainOnClose() {
  if (DRAIN_MS <= 0) return;
  http.Server.prototype.close = function close(done) {
    const lingered = new Promise((resolve) => setTimeout(resolve, LINGER_MS));
    this.prependListener("request", (_, response) => response.setHeader("Connection", "close"));
    setTimeout(() => this.closeIdleConnections(), DRAIN_MS).unref();
    return net.Server.prototype.close.call(this, (failure) => lingered.then(() => done?.(failure)));
  };
}
