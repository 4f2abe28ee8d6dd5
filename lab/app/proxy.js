import { NextResponse } from "next/server";

// As in the real service nothing names the build or the process, unless APP_NAMES_ITSELF is set in .env.production: then every
// answer does. APP_COMMIT is baked in by `next build`.
export function proxy() {
  const response = NextResponse.next();
  if (!process.env.APP_NAMES_ITSELF) return response;
  response.headers.set("x-app-commit", process.env.APP_COMMIT);
  response.headers.set("x-app-pid", String(process.pid));
  return response;
}

export const config = { matcher: ["/((?!_next/static).*)"] };
