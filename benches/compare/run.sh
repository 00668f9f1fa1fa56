#!/usr/bin/env bash
# The gateway beside its peers in one run: installs them, builds, measures, and makes the table and the plot.
# Needs two cores, root or sudo for apt-get, and about half an hour.
#
#   benches/compare/run.sh [SECONDS [ROUNDS]] [--only NAME,…] [--no-memory]
#
# Writes benches/results/DATE-compare.json and .svg; prints the table in Markdown.
set -euo pipefail
cd "$(dirname "$0")/../.."
benches/compare/install.sh
cargo build --release --locked --quiet --bins --examples
result=benches/results/$(date -u +%F)-compare.json
target/release/examples/compare run "$@" > "$result"
target/release/examples/compare table "$result"
