import { timingSafeEqual } from "node:crypto";
import { done, refused } from "@/lib/reply";
import { duplicateSessions } from "@/lib/sessions";

function isCron(request) {
  const expected = Buffer.from(`Bearer ${process.env.CRON_TOKEN ?? ""}`);
  const given = Buffer.from(request.headers.get("authorization") ?? "");
  return Boolean(process.env.CRON_TOKEN) && given.length === expected.length && timingSafeEqual(given, expected);
}

export async function POST(request) {
  if (!isCron(request)) return refused(401, "토큰이 올바르지 않습니다.");
  const report = await duplicateSessions();
  if (report.total > 0) console.warn(`WARN duplicate sessions on ${report.total} equipments`);
  return done(report);
}
