// The fault: this build compiles and passes every check of its files, and dies as soon as it is started.
export function register() {
  if (process.env.NEXT_RUNTIME !== "nodejs") return;
  console.error("ERROR crash-at-boot: this build cannot start");
  process.exit(1);
}
