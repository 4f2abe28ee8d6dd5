const behaviour = require("./behaviour.json");

module.exports = {
  apps: [
    {
      name: behaviour.name,
      script: behaviour.script || "server.cjs",
      ...(behaviour.cwd ? { cwd: behaviour.cwd } : {}),
      instances: behaviour.instances || 2,
      exec_mode: behaviour.exec_mode || "cluster",
      listen_timeout: 1000,
      kill_timeout: 1000,
      ...behaviour.app,
      env: { PORT: behaviour.port, DATABASE_PASSWORD: "never in a result", ...behaviour.env },
    },
  ],
};
