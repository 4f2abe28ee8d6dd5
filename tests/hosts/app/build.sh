#!/bin/sh
# What `npm ci`, `prisma generate` and `next build` leave, without their minutes: a build id, assets with a hash in their
# names, and a Prisma. "random" does as Next.js does where next.config sets no generateBuildId and the environment no key for
# server actions: every build has ids of its own.
set -eu
commit=$(git rev-parse HEAD)
id=$commit
if [ "${1:-}" = random ]; then id=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n'); fi
mkdir -p .next/server .next/static/chunks node_modules/.bin
printf %s "$commit" > .next/commit
printf %s "$id" > .next/BUILD_ID
printf 'console.log("%s")' "$id" > ".next/static/chunks/main-$id.js"
printf '{"node": {"action-%s": {"workers": {"app/page": {}}}}, "edge": {}, "encryptionKey": "key-%s"}' "$id" "$id" \
  > .next/server/server-reference-manifest.json
cp prisma.py node_modules/.bin/prisma
chmod +x node_modules/.bin/prisma
printf applies > mode
