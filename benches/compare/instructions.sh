#!/usr/bin/env bash
# User instructions a request, by valgrind: repeatable where CPU time is not. One keep-alive client.
#   benches/compare/instructions.sh [REQUESTS]
set -euo pipefail
cd "$(dirname "$0")/../.."
count=${1:-2000}
cargo build --release --quiet --bins --examples
bin=target/release work=$(mktemp -d)
trap 'kill -9 $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT
cat > "$work/c.yaml" <<Y
process: {threads: 1}
log: {access: {output: none}}
upstreams: {one: {targets: ['127.0.0.1:19000']}, json: {targets: ['127.0.0.1:19010']}}
listeners: [{name: main, address: 127.0.0.1:19011}]
admin: {address: 127.0.0.1:19111}
routes:
  - {name: strip, match: {path: /strip}, filters: [{strip_fields: {response: [ssn, "**.internal"]}}], action: {forward: json}}
  - {name: all, action: {forward: one}}
Y
$bin/examples/origin 127.0.0.1:19000 &
$bin/examples/origin 127.0.0.1:19010 json &
ask() { # url, how often, on one connection
  for _ in $(seq "$2"); do printf 'url = "%s"\noutput = "/dev/null"\n' "$1"; done | curl -s -K -
}
measure() { # name, url, command
  valgrind --tool=callgrind --callgrind-out-file="$work/$1" "${@:3}" >/dev/null 2>&1 & local pid=$!
  until curl -s -o /dev/null "$2"; do sleep 0.2; done
  ask "$2" 200
  callgrind_control -z $pid >/dev/null 2>&1
  ask "$2" "$count"
  callgrind_control -d $pid >/dev/null 2>&1
  sleep 1; kill -9 $pid; wait $pid 2>/dev/null || true
  echo "$1 $(($(awk '/^summary/ {print $2; exit}' "$work/$1".1) / count))"
}
measure bare http://127.0.0.1:19001/ $bin/examples/bare 127.0.0.1:19001 127.0.0.1:19000
measure plain http://127.0.0.1:19011/ $bin/portcullis run -q -c "$work/c.yaml"
measure strip http://127.0.0.1:19011/strip $bin/portcullis run -q -c "$work/c.yaml"
