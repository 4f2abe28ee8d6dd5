import { currentUser } from "@/lib/auth";
import { done, refused } from "@/lib/reply";
import { duplicateSessions } from "@/lib/sessions";

export const dynamic = "force-dynamic";

export async function GET() {
  const user = await currentUser();
  if (!user) return refused(401, "로그인이 필요합니다.");
  if (user.role !== "master") return refused(403, "마스터 관리자만 볼 수 있습니다.");
  return done(await duplicateSessions());
}
