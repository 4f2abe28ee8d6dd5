import { execFileSync } from "node:child_process";
import { PHASE_PRODUCTION_BUILD } from "next/constants.js";

const here = import.meta.dirname;

function commitOfThisBuild() {
  const commit =
    process.env.APP_COMMIT || execFileSync("git", ["rev-parse", "HEAD"], { cwd: here, encoding: "utf8" }).trim();
  if (!/^[0-9a-f]{40}$/.test(commit)) throw new Error(`APP_COMMIT must be 40 hexadecimal digits, not ${commit}`);
  return commit;
}

export default function configure(phase) {
  const base = {
    poweredByHeader: false,
    // The checkout of the lab lies inside another project: this directory is the root, whatever is above it.
    turbopack: { root: here },
    outputFileTracingRoot: here,
    serverExternalPackages: ["@prisma/client", "@prisma/adapter-pg", "pg"],
    // Assets of another build than this one (app/assets).
    rewrites: async () => ({ fallback: [{ source: "/_next/static/:path*", destination: "/assets/:path*" }] }),
  };
  if (phase !== PHASE_PRODUCTION_BUILD) return base;
  const commit = commitOfThisBuild();
  return { ...base, env: { APP_COMMIT: commit }, generateBuildId: () => commit };
}
