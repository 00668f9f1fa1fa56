#!/usr/bin/env bash
# CPU time per request beside bare Pingora, interleaved in one run: 64 keep-alive clients, answers of 1 KiB.
# The proxy has one core, the load and the target the other. Ratios count; the machine's own noise does not.
#
#   benches/compare/run.sh [SECONDS [ROUNDS]] > benches/results/DATE.txt
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-5} rounds=${2:-5}
command -v wrk >/dev/null || { echo "wrk is missing: apt-get install wrk" >&2; exit 1; }
cargo build --release --quiet --bins --examples
bin=target/release
work=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; rm -rf "$work"' EXIT

start() { # core, command …
  taskset -c "$1" "${@:2}" >/dev/null 2>"$work/log.$#" & pids+=($!); last=$!
}
start 1 $bin/examples/origin 127.0.0.1:19000
start 1 $bin/examples/origin 127.0.0.1:19010 json
start 0 $bin/examples/bare 127.0.0.1:19001 127.0.0.1:19000; declare -A pid; pid[bare]=$last
start 0 $bin/examples/bare 127.0.0.1:19002 127.0.0.1:19010; pid[bare-json]=$last

common="process: {threads: 1}
log: {access: {output: file, file: $work/access.log}}
upstreams: {one: {targets: ['127.0.0.1:19000']}, json: {targets: ['127.0.0.1:19010']}}"
openssl genrsa -out "$work/key.pem" 2048 2>/dev/null
openssl rsa -in "$work/key.pem" -pubout -out "$work/pub.pem" 2>/dev/null
b64() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
claims="$(printf '{"alg":"RS256","typ":"JWT"}' | b64).$(printf '{"sub":"ada","exp":4102444800}' | b64)"
token="$claims.$(printf %s "$claims" | openssl dgst -sha256 -sign "$work/key.pem" -binary | b64)"

config() { # name, port, routes
  printf '%s\nlisteners: [{name: main, address: 127.0.0.1:%s}]\nadmin: {address: 127.0.0.1:%s}\nroutes:\n%s\n' \
    "$common" "$2" "$(($2 + 100))" "$3" > "$work/$1.yaml"
  start 0 $bin/portcullis run -q -c "$work/$1.yaml"; pid[$1]=$last
}
many=$(for i in $(seq 1 999); do echo "  - {name: r$i, match: {path: '/repos/{owner}/{repo}/kind$i'}, action: {forward: one}}"; done)
config plain 19011 "  - {name: all, action: {forward: one}}"
config full 19012 "$many
  - name: full
    match: {path: /api/v1/users/*}
    filters: [{jwt: {public_key: \"\${file:$work/pub.pem}\"}}, {rate_limit: {limit: 10000000/s, by: consumer}}]
    action: {forward: one}"
config json 19013 "  - {name: all, action: {forward: json}}"
config strip 19014 "  - {name: all, filters: [{strip_fields: {response: [ssn, '**.internal']}}], action: {forward: json}}"
sleep 2

ticks() { awk '{print $14 + $15}' "/proc/$1/stat"; }
measure() { # name, url, header
  local before after requests
  before=$(ticks "${pid[$1]}")
  requests=$(taskset -c 1 wrk -t1 -c64 -d"${seconds}s" ${3:+-H "$3"} "$2" | tee "$work/wrk" | awk '/requests in/ {print $1}')
  after=$(ticks "${pid[$1]}")
  if grep -q 'Non-2xx' "$work/wrk"; then echo "$1: wrong answers" >&2; cat "$work/wrk" >&2; exit 1; fi
  awk -v t=$((after - before)) -v r="$requests" -v hz="$(getconf CLK_TCK)" 'BEGIN {printf "%.2f\n", t / hz * 1e6 / r}' | tee -a "$work/$1.us"
}

echo "# $(date -u +%FT%TZ)  commit $(git rev-parse --short HEAD)  $(nproc) cores  $(awk -F: '/model name/ {print $2; exit}' /proc/cpuinfo)"
echo "# CPU µs per request, $rounds rounds of $seconds s each"
printf '%-6s %8s %8s %8s %10s %8s %8s\n' round bare plain full bare-json json strip
for round in $(seq "$rounds"); do
  printf '%-6s %8s %8s %8s %10s %8s %8s\n' "$round" \
    "$(measure bare http://127.0.0.1:19001/)" "$(measure plain http://127.0.0.1:19011/)" \
    "$(measure full http://127.0.0.1:19012/api/v1/users/profile "Authorization: Bearer $token")" \
    "$(measure bare-json http://127.0.0.1:19002/)" "$(measure json http://127.0.0.1:19013/)" "$(measure strip http://127.0.0.1:19014/)"
done
median() { sort -n "$work/$1.us" | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
echo "# medians: bare $(median bare)  plain $(median plain)  full $(median full)  bare-json $(median bare-json)  json $(median json)  strip $(median strip)"
awk -v b="$(median bare)" -v p="$(median plain)" -v f="$(median full)" -v j="$(median json)" -v s="$(median strip)" 'BEGIN {
  printf "# plain / bare            %.3f\n# full / bare             %.3f   (JWT RS256 + rate limit + request id + 1,000 routes)\n# strip - json            %.2f µs\n", p / b, f / b, s - j }'
