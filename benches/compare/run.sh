#!/usr/bin/env bash
# The gateway beside its peers in one run: installs them, builds, measures, makes the table and the plot, then
# upgrades and reloads under load, and runs wrk and k6 against the demo.
# Needs two cores, root or sudo for apt-get, and about half an hour.
#
#   benches/compare/run.sh [SECONDS [ROUNDS]] [--only NAME,…] [--no-memory]
#
# Writes benches/results/DATE-compare.json, .svg and -soak.txt; prints the table in Markdown.
set -euo pipefail
cd "$(dirname "$0")/../.."
benches/compare/install.sh
cargo build --release --locked --quiet --bins --examples
compare=target/release/examples/compare
result=benches/results/$(date -u +%F)-compare
$compare run "$@" > "$result.json"
$compare table "$result.json"
{ $compare soak; $compare reloads; } | tee "$result-soak.txt"

target/release/portcullis -q demo --port 18080 --admin-port 18081 >/dev/null & demo=$!
trap 'kill $demo' EXIT
until curl -s -o /dev/null http://127.0.0.1:18080/echo/; do sleep 0.1; done
benches/wrk/demo.sh http://127.0.0.1:18080/echo/hello 10
target/peers/k6 run --quiet -e GATEWAY=http://127.0.0.1:18080 -e DURATION=10s benches/k6/demo.js
