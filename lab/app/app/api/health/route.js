import { NextResponse } from "next/server";
import { prisma } from "@/lib/prisma";

export const dynamic = "force-dynamic";

export async function GET() {
  const answer = { timestamp: new Date().toISOString() };
  try {
    await prisma().$queryRaw`SELECT 1`;
    return NextResponse.json({ status: "healthy", database: "connected", ...answer });
  } catch (failure) {
    console.error(`ERROR health: no database (${failure.code ?? failure.name})`);
    return NextResponse.json({ status: "unhealthy", database: "disconnected", ...answer }, { status: 503 });
  }
}
