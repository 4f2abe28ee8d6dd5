// The same fault for a release that is copied from a finished one (lab/bin/build-light) instead of compiled.
console.error("ERROR crash-at-boot: this build cannot start");
process.exit(1);
