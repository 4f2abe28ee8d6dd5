// PM2 must store the application's own path (/var/www/aedpics, or the link that takes its place), never the directory of one
// release: `require` resolves links, so __dirname is the release, and the path comes from .env.
const fs = require("node:fs");
const path = require("node:path");

function readEnv(file) {
  if (!fs.existsSync(file)) return {};
  const lines = fs.readFileSync(file, "utf8").matchAll(/^([A-Z_]+)=["']?(.*?)["']?$/gm);
  return Object.fromEntries([...lines].map(([, name, value]) => [name, value]));
}

const env = readEnv(path.join(__dirname, ".env"));
const cwd = env.APP_PATH || __dirname.replace(/\.releases\/[^/]+$/, "");

module.exports = {
  apps: [
    {
      name: "aedpics",
      script: "node_modules/next/dist/bin/next",
      args: `start -H 127.0.0.1 -p ${env.PORT || 3000}`,
      cwd,
      exec_mode: "cluster",
      instances: 2,
      listen_timeout: 15_000,
      kill_timeout: 5_000,
      max_restarts: 10,
      min_uptime: 1_000,
      merge_logs: true,
      out_file: `${cwd}.logs/out.log`,
      error_file: `${cwd}.logs/error.log`,
      env: { NODE_ENV: "production", NEXT_TELEMETRY_DISABLED: "1" },
    },
  ],
};
