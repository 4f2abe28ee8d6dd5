import { prisma } from "./prisma";

export const OPEN = ["active", "paused"];

export function openSession(equipmentSerial) {
  return prisma().inspection_sessions.findFirst({
    where: { equipment_serial: equipmentSerial, status: { in: OPEN } },
    orderBy: { started_at: { sort: "desc", nulls: "last" } },
  });
}

/** Equipment with more than one open session. */
export async function duplicateSessions() {
  const groups = await prisma().inspection_sessions.groupBy({
    by: ["equipment_serial"],
    where: { status: { in: OPEN } },
    _count: { _all: true },
    having: { equipment_serial: { _count: { gt: 1 } } },
    orderBy: { equipment_serial: "asc" },
  });
  const duplicates = groups.map((group) => ({ equipment_serial: group.equipment_serial, count: group._count._all }));
  return { total: duplicates.length, duplicates, timestamp: new Date().toISOString() };
}
