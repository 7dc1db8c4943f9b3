#!/usr/bin/env bash
# What the commit window costs and saves: three rates, four windows, one line each. Needs wrk, curl, bc; about 3 minutes.
# Usage: bench/commit-window.sh BLOCK_DEVICE (as in /proc/diskstats, the one that holds $TMPDIR)
set -euo pipefail
device=${1:?the block device that holds the data directory, as in /proc/diskstats}
here=$(cd "$(dirname "$0")" && pwd)
playhead=${PLAYHEAD:-$here/../target/release/playhead}
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT

sectors() { awk -v device="$device" '$3 == device { print $10 }' /proc/diskstats; }
ticks() { awk '{ print $14 + $15 }' "$1/stat"; }
metric() { curl -s "$admin/metrics" | awk -v name="$1" '$1 == name { print $2 }'; }

head -c 32 /dev/urandom | base64 > "$work/secret"
for user in $(seq 10000); do "$playhead" token --user "$user" --jwt-secret-file "$work/secret"; done > "$work/tokens"

for delay in 125 11 0; do
  for window in 0ms 1ms 2ms 5ms; do
    "$playhead" serve --jwt-secret-file "$work/secret" --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 \
      --throttle-per-second 0 --data-dir "$work/data" --commit-window "$window" > "$work/out" 2> "$work/log" &
    server=$!
    until grep -q 'admin on' "$work/out"; do kill -0 "$server"; sleep 0.1; done
    url=$(sed -n 's/listening on //p' "$work/out")
    admin=$(sed -n 's/admin on //p' "$work/out")
    # Zeroing the spare segments is not part of what is measured.
    sleep 2 && sync
    committer=$(dirname "$(grep -l playhead-commit /proc/"$server"/task/*/comm)")
    sectors_before=$(sectors) committer_before=$(ticks "$committer") server_before=$(ticks "/proc/$server")
    result=$(DELAY=$delay wrk -t2 -c256 -d5s -s "$here/heartbeats.lua" "$url" -- "$work/tokens" | grep '^requests=')
    sectors_after=$(sectors) committer_after=$(ticks "$committer") server_after=$(ticks "/proc/$server")
    records=$(metric playhead_store_records_total) frames=$(metric playhead_store_frames_total)
    echo "window=$window per_second=$((records / 5)) $result" \
      "records_per_frame=$(bc <<< "scale=1; $records / $frames")" \
      "device_bytes_per_24=$(bc <<< "scale=1; ($sectors_after - $sectors_before) * 512 / ($records * 24)")" \
      "committer_us=$(bc <<< "scale=2; ($committer_after - $committer_before) * 10000 / $records")" \
      "server_us=$(bc <<< "scale=2; ($server_after - $server_before) * 10000 / $records")"
    kill "$server" && wait "$server" || true
    server=
    rm -rf "$work/data"
  done
done
