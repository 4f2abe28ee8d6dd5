#!/bin/sh
# The deployment guide's commands in its own order, corrected where they do not do what it says, and nothing else: what a
# person would type into a shell on the lab. bench/cases/deploy.py compares deploy.yml with it; .lab/lab.env has to be read in.
#   . .lab/lab.env && bench/guide.sh
set -eu
export CHECKPOINT_DISABLE=1 NEXT_TELEMETRY_DISABLED=1 PRISMA_HIDE_UPDATE_MESSAGE=1

# Phase 1: the newest code. In place, as the guide has it, the build would break the pages that are being served: it is
# made beside them, and becomes what the application's path leads to.
git -C "$APP_PATH" log --oneline -5
git -C "$APP_PATH" status --short --untracked-files=no
git -C "$APP_PATH" fetch --quiet origin "$APP_BRANCH"
before=$(git -C "$APP_PATH" rev-parse HEAD)
commit=$(git -C "$APP_PATH" rev-parse FETCH_HEAD)
release=$APP_PATH.releases/$commit
mkdir -p "$APP_PATH.releases"
git clone --quiet --no-checkout "$APP_ORIGIN" "$release"
git -C "$release" checkout --quiet --detach "$commit"
cp -p "$APP_PATH/.env.production" "$release/.env.production"
cd "$release"
npm ci --no-audit --no-fund
npx --no-install prisma generate
npm run build

# Phase 3, step 1: the guide's script would remove 57 rows. This takes the 25, after showing them, without an archive.
surplus="SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY equipment_serial
           ORDER BY started_at DESC NULLS LAST, id) AS place
         FROM aedpics.inspection_sessions WHERE status IN ('active', 'paused')) AS ranked WHERE place > 1"
psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -c "SELECT * FROM aedpics.inspection_sessions WHERE id IN ($surplus)"
psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -c "DELETE FROM aedpics.inspection_sessions WHERE id IN ($surplus)"

# Step 2: --skip-generate is no option of it.
npx --no-install prisma migrate deploy

# Steps 3 and 4: the three indexes by their names, since the guide's patterns find a fourth; and the duplicates.
found=$(psql "$DATABASE_URL" -At -c "SELECT count(*) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
  WHERE relnamespace = 'aedpics'::regnamespace AND indisvalid AND relname IN (
    'idx_inspection_sessions_active_session_per_equipment', 'idx_inspection_schedules_equipment_date',
    'idx_inspection_schedules_active')")
left=$(psql "$DATABASE_URL" -At -c "SELECT count(*) FROM ($surplus) AS left_over")
[ "$found $left" = "3 0" ] || { echo "$found of 3 indexes, $left duplicates" >&2; exit 1; }

# Step 5: the path becomes a link, then the reload; without --update-env the old environment stays.
if [ ! -L "$APP_PATH" ]; then mv "$APP_PATH" "$APP_PATH.releases/$before"; fi
ln -s "$release" "$APP_PATH.new"
mv -T "$APP_PATH.new" "$APP_PATH"
cd "$APP_PATH"
"$PM2_BIN" reload ecosystem.config.cjs --update-env
"$PM2_BIN" status
"$PM2_BIN" save

# Phase 4: page, health, one session and the duplicates, signed in as the application knows it: by NextAuth's cookie.
jar=$(mktemp)
trap 'rm -f "$jar"' EXIT
sign_in() {
  : > "$jar"
  token=$(curl -fsS -c "$jar" "$APP_URL/api/auth/csrf" | sed 's/.*"csrfToken":"\([^"]*\)".*/\1/')
  curl -fsS -o /dev/null -b "$jar" -c "$jar" --data-urlencode "csrfToken=$token" --data-urlencode "email=$1" \
    --data-urlencode "password=$2" "$APP_URL/api/auth/callback/credentials"
}
curl -fsSI "$APP_URL" | head -1
curl -fsS "$APP_URL/api/health"
sign_in "$INSPECTOR_EMAIL" "$INSPECTOR_PASSWORD"
curl -fsS -b "$jar" -H 'Content-Type: application/json' -d "{\"equipment_serial\": \"$CANARY_SERIAL\"}" \
  "$APP_URL/api/inspections/sessions"
sign_in "$ADMIN_EMAIL" "$ADMIN_PASSWORD"
curl -fsS -b "$jar" "$APP_URL/api/monitoring/duplicate-sessions"
tail -n 100 "$APP_LOG" | grep -E 'ERROR|WARN' || true
