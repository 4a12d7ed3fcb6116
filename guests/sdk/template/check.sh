#!/bin/sh
# Checks that each template builds and passes its tests outside of this repository: check.sh [DIRECTORY].
set -eu
template=$(cd "$(dirname "$0")" && pwd)
directory=${1:-$(mktemp -d)}
export CARGO_TARGET_DIR="$directory/target"
for world in decoder extractor inspector verifier; do
    "$template/new.sh" "$world" "my-$world" "$directory/$world"
    cd "$directory/$world"
    cargo fmt --check
    cargo test --quiet
    cargo clippy --quiet --all-targets -- -D warnings
    ./build.sh
    test -s plugin.wasm
done
