import { readFile } from "node:fs/promises";
import path from "node:path";

// While instances of two builds serve, a page of the new one may ask an old one for its assets. `next start` knows only the
// files that were there when it started, but the application's path leads to the new build already: what it has is given
// from there. next.config.mjs sends here what Next.js itself does not find.
const TYPES = { ".js": "text/javascript", ".css": "text/css", ".json": "application/json", ".woff2": "font/woff2" };

export async function GET(_request, { params }) {
  const root = path.join(process.env.APP_PATH, ".next/static");
  const file = path.join(root, ...(await params).path);
  const type = TYPES[path.extname(file)];
  const body = type && file.startsWith(root + path.sep) ? await readFile(file).catch(() => null) : null;
  if (!body) return new Response("Not Found", { status: 404 });
  return new Response(body, {
    headers: { "content-type": type, "cache-control": "public, max-age=31536000, immutable" },
  });
}
