/** Next.js calls this once in each process, after the signal handlers of `next start` and before the first request. */
export async function register() {
  if (process.env.NEXT_RUNTIME === "nodejs") {
    const { drainOnClose } = await import("./lib/drain.mjs");
    drainOnClose();
  }
}
