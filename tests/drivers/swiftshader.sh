#!/usr/bin/env bash
# Fetches SwiftShader, a Vulkan driver that computes on the CPU, and prints the path of its manifest
# for VK_DRIVER_FILES. It is part of Debian's package chromium-common (Ubuntu has none); nothing is
# installed. If it is not available, says why in one line on standard error, prints nothing and
# succeeds.
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=$PWD/target/swiftshader
description=$folder/vk_swiftshader_icd.json

without() {
    echo "note: no SwiftShader ($1): the tests run on one Vulkan driver only" >&2
    exit 0
}

if [ ! -s "$description" ]; then
    [ "$(uname -s)" = Linux ] || without "this is not Linux"
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || without "there is no apt-get to fetch it with"
    rm -rf "$folder"
    mkdir -p "$folder"
    # Only root can update the package lists.
    if ! (cd "$folder" && apt-get download chromium-common) >"$folder/log" 2>&1; then
        { apt-get update && (cd "$folder" && apt-get download chromium-common); } >>"$folder/log" 2>&1 ||
            without "apt-get download chromium-common fails: $(tail -n 1 "$folder/log")"
    fi
    dpkg --extract "$folder"/chromium-common_*.deb "$folder/package"
    mv "$folder"/package/usr/lib/chromium/{libvk_swiftshader.so,vk_swiftshader_icd.json} "$folder" ||
        without "chromium-common no longer holds it"
    rm -rf "$folder/package" "$folder"/*.deb
fi
echo "$description"
