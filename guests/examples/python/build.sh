#!/bin/sh
# Builds the component: build.sh OUTPUT.wasm [VENV]. Needs Python 3.10 or newer; componentize-py comes from PyPI into VENV,
# by default one beside the output.
set -eu
output=$(realpath -m "${1:?usage: build.sh OUTPUT.wasm [VENV]}")
venv=$(realpath -m "${2:-$(dirname "$output")/componentize-py}")
cd "$(dirname "$0")"
wit=$(realpath ../../../wit)
[ -x "$venv/bin/componentize-py" ] || {
    python3 -m venv "$venv"
    "$venv/bin/pip" --quiet --disable-pip-version-check install componentize-py==0.25.1
}
# Stubs for WASI: the component then imports nothing but Cofferdam's interfaces, and asks for no capability.
"$venv/bin/componentize-py" --quiet -d "$wit" -w inspector componentize --stub-wasi -p . -o "$output" plugin
