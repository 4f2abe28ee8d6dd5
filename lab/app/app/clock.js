"use client";

import { useEffect, useState } from "react";

// A client component, so that the page needs its hashed JavaScript chunks as a real one does.
export function Clock() {
  const [now, setNow] = useState("");
  useEffect(() => setNow(new Date().toLocaleString("ko-KR")), []);
  return <p>현재 시각: {now || "불러오는 중"}</p>;
}
