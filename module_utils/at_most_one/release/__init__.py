"""The release's files: source, build, shipping, link and retention."""
