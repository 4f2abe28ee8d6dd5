"use client";

import { useState } from "react";

// What a page asks for only when somebody clicks: of its own build, however long ago it was loaded.
export function Help() {
  const [text, setText] = useState("");
  const show = async () => setText((await import("./help-text")).text);
  return (
    <p>
      <button onClick={show}>도움말</button> {text}
    </p>
  );
}
