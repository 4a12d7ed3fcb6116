#!/bin/sh
# Checks that each template builds and passes its tests outside of this repository: check.sh [DIRECTORY].
set -eu
template=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$template/../../.." && pwd)
directory=${1:-$(mktemp -d)}
vendored() {
    cd "$root"
    find wit guests/Cargo.toml guests/decode guests/layer guests/sdk -type f \
        \( -name Cargo.toml -o -name README.md -o -path '*/src/*' -o -name '*.wit' \) \
        ! -path 'guests/sdk/template/*' | LC_ALL=C sort
}
# The files of a copy of the SDK: `check.sh --list >vendored.txt` brings the list up to date.
if [ "$directory" = --list ]; then
    vendored
    exit
fi
vendored | diff - "$template/vendored.txt" || {
    echo "vendored.txt is not up to date" >&2
    exit 1
}
export CARGO_TARGET_DIR="$directory/target"
for world in decoder extractor inspector verifier; do
    "$template/new.sh" "$world" "my-$world" "$directory/$world"
    (cd "$directory/$world" && cargo fmt --check && cargo test --quiet && cargo clippy --quiet --all-targets -- -D warnings && ./build.sh)
    test -s "$directory/$world/plugin.wasm"
done
