import { NextResponse } from "next/server";

// Which build and which process answered: a deployment proves itself by these two. APP_COMMIT is baked in by `next build`.
export function proxy() {
  const response = NextResponse.next();
  response.headers.set("x-app-commit", process.env.APP_COMMIT);
  response.headers.set("x-app-pid", String(process.pid));
  return response;
}

export const config = { matcher: ["/((?!_next/static).*)"] };
