#!/usr/bin/env bash
# A minute of load while the configuration is reloaded every second and one of two targets is killed with
# SIGKILL and started again every six. Prints what wrk saw, the memory, and how many answers were not 200.
#   benches/wrk/reloads.sh [SECONDS]
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-60}
cargo build --release --quiet --bins --examples
bin=target/release work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT
cat > "$work/c.yaml" <<Y
process: {threads: 1}
log: {access: {output: file, file: $work/access.log}}
upstreams: {one: {targets: ['127.0.0.1:19000', '127.0.0.1:19002'], health: {active: {interval: 200ms, fall: 1, rise: 1}}}}
listeners: [{name: main, address: 127.0.0.1:19011}]
admin: {address: 127.0.0.1:19111}
routes: [{name: all, action: {forward: one}}]
Y
$bin/examples/origin 127.0.0.1:19000 &
$bin/examples/origin 127.0.0.1:19002 & victim=$!
# A reload opens an access log anew at the end of the same file.
$bin/portcullis run -q -c "$work/c.yaml" 2>/dev/null & gateway=$!
sleep 1
wrk -t1 -c64 -d"${seconds}s" http://127.0.0.1:19011/ > "$work/wrk" & load=$!
for i in $(seq $((seconds - 2))); do
  sleep 0.5; kill -HUP $gateway
  case $((i % 6)) in 2) kill -9 $victim ;; 5) $bin/examples/origin 127.0.0.1:19002 & victim=$! ;; esac
  sleep 0.5
done 2>/dev/null
wait $load
grep VmRSS /proc/$gateway/status
kill -TERM $gateway; wait $gateway || true
# wrk tells of answers that were not 2xx, and of sockets that failed; what it breaks off itself when its
# time is over is logged as client_gone.
grep -E 'requests in|Non-2xx|Socket errors' "$work/wrk"
echo "answers other than 200: $(grep -v '"reason":"client_gone"' "$work/access.log" | grep -vc '"status":200' || true), in $(wc -l < "$work/access.log") lines"
