const fs = require("node:fs");
const path = require("node:path");

const lines = fs.readFileSync(path.join(__dirname, ".env.production"), "utf8").matchAll(/^([A-Z_]+)="?(.*?)"?$/gm);
const env = Object.fromEntries([...lines].map(([, name, value]) => [name, value]));

module.exports = {
  apps: [
    {
      name: "aedpics",
      script: "server.cjs",
      cwd: env.APP_PATH,
      exec_mode: "cluster",
      instances: 2,
      listen_timeout: 5_000,
      kill_timeout: 2_000,
      env: { PORT: env.PORT },
    },
  ],
};
