#!/usr/bin/env bash
# A minute of load on a running demo (portcullis demo): wrk from Debian's packages.
#   benches/wrk/demo.sh [URL [SECONDS]]
set -euo pipefail
url=${1:-http://127.0.0.1:8080/echo/hello}
exec wrk -t2 -c64 -d"${2:-60}s" --latency "$url"
