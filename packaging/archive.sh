#!/usr/bin/env bash
# Makes the archive of a release: the program, its manual pages and completions, licences and README.
# TARGET names another platform than this machine's. Needs Rust and Python 3.9 or newer.
#
# The last line of the output is the archive's path.
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/common.sh

tools
build_program
name=bdh-gpu-$version-$triple
folder=$work/$name
rm -rf "$folder"
mkdir -p "$folder"
cp "$program" README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE "$folder"
extras "$program" "$folder"
case $triple in
    *windows*)
        # Direct3D 12's older compiler, FXC, takes minutes for some kernels. The program loads DXC
        # from its own folder.
        sdk=$(ls -d "/c/Program Files (x86)/Windows Kits/10/bin/"*/x64 2>/dev/null | sort -V | tail -n 1) || true
        cp "$sdk"/{dxcompiler,dxil}.dll "$folder" || fail "no DXC in the Windows SDK; install the SDK"
        ;;
esac
python packaging/pack.py "$folder" "$out"
