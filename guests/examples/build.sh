#!/bin/sh
# Builds the plugins: build.sh DIRECTORY [NAME…], by default all that are in Rust. Each becomes DIRECTORY/NAME with its
# component beside its plugin.toml, which is what `cofferdam plugin add` and `plugin pack` take. `python` needs PyPI once.
set -eu
directory=$(realpath -m "${1:?usage: build.sh DIRECTORY [NAME…]}")
shift
[ $# -gt 0 ] || set -- cosign sbom setuid-policy xz
cd "$(dirname "$0")"
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
for name in "$@"; do
    mkdir -p "$directory/$name"
    cp "$name/plugin.toml" "$directory/$name/"
    if [ "$name" = python ]; then
        python/build.sh "$directory/python/debian_licenses.wasm" "$directory/.componentize-py"
        continue
    fi
    # One after another: built together, each would have the features of the SDK that any of them asks for.
    cargo build --locked --release --target wasm32-unknown-unknown --target-dir "$target" --package "$name"
    file=$(printf %s "$name" | tr - _).wasm
    cp "$target/wasm32-unknown-unknown/release/$file" "$directory/$name/$file"
done
