// As the real service has it: dotenv from a path that is relative to the directory in which pm2 is called, so pm2 is called in
// the application's path. PM2 must store that path, never the directory of one release: `__dirname` has its links resolved.
require("dotenv").config({ path: ".env.production" });

const cwd = process.env.APP_PATH;
if (!cwd) throw new Error("APP_PATH is not set: call pm2 in the directory that has .env.production");

module.exports = {
  apps: [
    {
      name: "aedpics",
      script: "node_modules/next/dist/bin/next",
      args: `start -H 127.0.0.1 -p ${process.env.PORT || 3000}`,
      cwd,
      exec_mode: "cluster",
      instances: 2,
      // `next start` never sends "ready": PM2 waits for the whole listen_timeout, at every start and reload of an instance.
      wait_ready: true,
      listen_timeout: 2_000,
      kill_timeout: 5_000,
      max_restarts: 10,
      min_uptime: 1_000,
      merge_logs: true,
      out_file: `${cwd}.logs/production.log`,
      error_file: `${cwd}.logs/production.log`,
      env: { NODE_ENV: "production", NEXT_TELEMETRY_DISABLED: "1" },
    },
  ],
};
