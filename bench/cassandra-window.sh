#!/usr/bin/env bash
# What the commit window costs and saves in front of Cassandra: two rates, four windows, three rounds, one line each. One
# node that syncs before it acknowledges (`batch`). Needs JDK 17, Maven, bc; about 4 minutes.
# Usage: bench/cassandra-window.sh (after cargo build --release --locked -p playhead -p xtask)
set -euo pipefail
cd "$(dirname "$0")/.."
playhead=${PLAYHEAD:-target/release/playhead}
xtask=${XTASK:-target/release/xtask}
work=$(mktemp -d)
servers=()
trap 'for server in "${servers[@]}"; do kill "$server" 2>/dev/null || true; done; \
  "$xtask" cassandra stop --dir "$work/node" > /dev/null; rm -rf "$work"' EXIT

ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }
switches() { cat /proc/"$1"/task/*/status | awk '/ctxt_switches/ { sum += $2 } END { print sum }'; }
field() { grep -o "\"$1\":[0-9.]*" "$work/result.json" | head -1 | cut -d: -f2; }

points=$("$xtask" cassandra start --nodes 1 --sync batch --heap-mib 1024 --dir "$work/node" \
  | sed -n 's/^contact points: //p')
java=$(pgrep -f "$work/node/node1/java.args")
"$playhead" schema apply --cassandra-nodes "$points" --cassandra-replication 1 > /dev/null

windows=(0ms 1ms 2ms 5ms)
for window in "${windows[@]}"; do
  "$playhead" serve --dev --data-dir "$work/$window" --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 \
    --store cassandra --cassandra-nodes "$points" --commit-window "$window" > "$work/$window.out" 2> "$work/$window.log" &
  servers+=($!)
  until grep -q 'admin on' "$work/$window.out"; do kill -0 $!; sleep 0.1; done
done

# The first round is for the JVM's compiler.
for round in 0 1 2 3; do
  for rate in 2000 8000; do
    for number in "${!windows[@]}"; do
      window=${windows[$number]} server=${servers[$number]}
      url=$(sed -n 's/listening on //p' "$work/$window.out")
      own=$(ticks "$server") jvm=$(ticks "$java") switched=$(switches "$server")
      "$playhead" load --target "$url" --data-dir "$work/$window" --connections 256 --streamers $((4 * rate)) \
        --duration 6s --json "$work/result.json" > "$work/load.out"
      own=$(($(ticks "$server") - own)) jvm=$(($(ticks "$java") - jvm)) switched=$(($(switches "$server") - switched))
      rows=$(field acknowledged)
      [ "$round" = 0 ] || echo "rate=$rate window=$window round=$round rows=$rows p50_ms=$(field p50) p99_ms=$(field p99)" \
        "server_us=$(bc <<< "scale=1; $own * 10000 / $rows")" \
        "jvm_us=$(bc <<< "scale=1; $jvm * 10000 / $rows")" \
        "switches_per_row=$(bc <<< "scale=2; $switched / $rows")"
    done
  done
done
