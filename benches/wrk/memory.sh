#!/usr/bin/env bash
# Memory under ten minutes of load: half of the clients on a plain route, half on strip_fields, with the
# access log on. Prints the resident memory and the part of it that is written to, every 30 s.
#   benches/wrk/memory.sh [SECONDS]
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-600}
[ -n "${NO_BUILD:-}" ] || cargo build --release --quiet --bins --examples
bin=target/release work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT
cat > "$work/c.yaml" <<Y
process: {threads: 1}
log: {access: {output: file, file: $work/access.log}}
upstreams: {one: {targets: ['127.0.0.1:19000']}, json: {targets: ['127.0.0.1:19010']}}
listeners: [{name: main, address: 127.0.0.1:19021}]
admin: {address: 127.0.0.1:19121}
routes:
  - {name: strip, match: {path: /strip}, filters: [{strip_fields: {response: [ssn, "**.internal"]}}], action: {forward: json}}
  - {name: all, action: {forward: one}}
Y
$bin/examples/origin 127.0.0.1:19000 &
$bin/examples/origin 127.0.0.1:19010 json &
$bin/portcullis run -q -c "$work/c.yaml" 2>/dev/null & gateway=$!
sleep 1
wrk -t1 -c32 -d"${seconds}s" http://127.0.0.1:19021/ > "$work/wrk1" & first=$!
wrk -t1 -c32 -d"${seconds}s" http://127.0.0.1:19021/strip > "$work/wrk2" & second=$!
for at in $(seq 30 30 "$seconds"); do
  sleep 30
  : > "$work/access.log"
  echo "$at s $(awk '/VmRSS|RssAnon/ {printf "%s %s kB  ", $1, $2}' /proc/$gateway/status)"
done
wait $first $second
grep -h -E 'requests in|Non-2xx' "$work/wrk1" "$work/wrk2"
