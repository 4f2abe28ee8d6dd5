import { currentUser } from "@/lib/auth";
import { prisma } from "@/lib/prisma";
import { done, refused } from "@/lib/reply";
import { openSession } from "@/lib/sessions";
import { isUniqueViolation } from "@/lib/unique-violation";

// One open session per equipment. The application looks first, for a friendly answer; the database's unique index decides.
export async function POST(request) {
  const user = await currentUser();
  if (!user) return refused(401, "로그인이 필요합니다.");
  const { equipment_serial: serial } = await request.json().catch(() => ({}));
  if (typeof serial !== "string" || !serial) return refused(400, "equipment_serial이 필요합니다.");

  const open = await openSession(serial);
  if (open?.inspector_id === user.id) return done({ ...open, resumed: true });
  if (open) return refused(409, "이미 점검 중인 장비입니다.");

  const device = await prisma().aed_data.findUnique({ where: { equipment_serial: serial } });
  if (!device) return refused(404, "등록되지 않은 장비입니다.");

  try {
    const session = await prisma().inspection_sessions.create({
      data: {
        equipment_serial: serial,
        inspector_id: user.id,
        status: "active",
        started_at: new Date(),
        device_info: { institution: device.installation_institution, address: device.installation_address },
      },
    });
    return done({ ...session, resumed: false });
  } catch (failure) {
    if (isUniqueViolation(failure)) return refused(409, "이미 점검 중인 장비입니다.");
    throw failure;
  }
}
