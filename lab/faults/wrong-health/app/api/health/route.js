import { NextResponse } from "next/server";

export const dynamic = "force-dynamic";

// The fault: this build boots, answers with 200 and names itself, but says of itself that it is not well.
export function GET() {
  return NextResponse.json({ status: "degraded", commit: process.env.APP_COMMIT });
}
