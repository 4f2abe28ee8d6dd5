import { currentUser } from "@/lib/auth";
import { prisma } from "@/lib/prisma";
import { done, refused } from "@/lib/reply";
import { OPEN } from "@/lib/sessions";

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

export async function POST(_request, { params }) {
  const user = await currentUser();
  if (!user) return refused(401, "로그인이 필요합니다.");
  const { id } = await params;
  const session = UUID.test(id) ? await prisma().inspection_sessions.findUnique({ where: { id } }) : null;
  if (!session) return refused(404, "점검 세션이 없습니다.");
  if (session.inspector_id !== user.id) return refused(403, "다른 점검자의 세션입니다.");

  const now = new Date();
  const { count } = await prisma().inspection_sessions.updateMany({
    where: { id, status: { in: OPEN } },
    data: { status: "cancelled", cancelled_at: now, updated_at: now },
  });
  if (count === 0) return refused(409, "진행 중인 세션이 아닙니다.");
  return done({ id, status: "cancelled", cancelled_at: now.toISOString() });
}
