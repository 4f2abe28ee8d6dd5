import { NextResponse } from "next/server";

export const done = (data, status = 200) => NextResponse.json({ success: true, data }, { status });

export const refused = (status, error) => NextResponse.json({ success: false, error }, { status });
