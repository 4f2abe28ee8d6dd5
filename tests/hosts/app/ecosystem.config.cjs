const fs = require("node:fs");
const path = require("node:path");

// What differs between the hosts stands in .env.production, which every release of a host shares.
const lines = fs.readFileSync(path.join(__dirname, ".env.production"), "utf8").trim().split("\n");
const env = Object.fromEntries(lines.map((line) => line.split("=", 2)));

module.exports = {
  apps: [
    {
      name: "light",
      script: "server.cjs",
      cwd: env.APP_PATH,
      exec_mode: "cluster",
      instances: 2,
      listen_timeout: 5_000,
      kill_timeout: 5_000,
      env: { ...env, APP_DRAIN_MS: "1000" },
    },
  ],
};
