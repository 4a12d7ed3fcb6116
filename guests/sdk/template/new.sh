#!/bin/sh
# What `cofferdam plugin new --world WORLD NAME` does, from a checkout: new.sh WORLD NAME DIRECTORY.
#
# The scaffold is template/common and template/WORLD, with {{name}} replaced, and below cofferdam/ the files and directories
# that vendored.txt names, at the same paths as in this repository.
set -eu
world=$1 name=$2 directory=$3
template=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$template/../../.." && pwd)
mkdir -p "$directory"
cp -R "$template/common/." "$template/$world/." "$directory"
for file in Cargo.toml plugin.toml README.md; do
    sed -i "s/{{name}}/$name/g" "$directory/$file"
done
while read -r path; do
    mkdir -p "$directory/cofferdam/$(dirname "$path")"
    cp -R "$root/$path" "$directory/cofferdam/$path"
done <"$template/vendored.txt"
