import { NextResponse } from "next/server";

export const dynamic = "force-dynamic";

// The fault: this build boots, answers with 200, but says of itself that it is not well.
export function GET() {
  return NextResponse.json({ status: "degraded" });
}
