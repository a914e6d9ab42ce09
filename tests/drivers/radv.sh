#!/usr/bin/env bash
# Fetches RADV, Mesa's Vulkan driver for AMD graphics cards, and prints the path of a script that
# runs a program on it: RUN PROGRAM [ARGUMENTS]. AMDGPU_GPU_ID names the chip, navi31 (RX 7900) by
# default.
#
# No card is needed: a preloaded library (mesa-drm-shim) stands in for the kernel's driver. Kernels
# are really compiled; submissions complete at once and compute nothing.
#
# The packages come from Debian's backports. If they are not available, says why in one line on
# standard error, prints nothing and succeeds.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
folder=$(mkdir -p "$target" && cd "$target" && pwd)/radv
run=$folder/run
packages=(mesa-vulkan-drivers mesa-drm-shim libdrm2 libdrm-amdgpu1)

without() {
    echo "note: no RADV ($1): registers of the kernels are not compared" >&2
    exit 0
}

if [ ! -x "$run" ]; then
    rm -rf "$folder"
    mkdir -p "$folder"
    . tests/drivers/debian.sh
    find_debian_mirror "$folder"
    private_apt "$folder" "$VERSION_CODENAME" "$VERSION_CODENAME-backports"
    {
        "${apt[@]}" update
        (cd "$folder" && "${apt[@]}" download "${packages[@]}")
    } >"$folder/log" 2>&1 || without "apt-get download fails: $(tail -n 1 "$folder/log")"
    for package in "$folder"/*.deb; do
        dpkg --extract "$package" "$folder/package"
    done
    rm -rf "$folder"/{*.deb,state,cache}

    libraries=$(dirname "$(find "$folder/package" -name libvulkan_radeon.so)")
    shim=$libraries/libamdgpu_noop_drm_shim.so
    [ -r "$shim" ] || without "mesa-drm-shim no longer holds it"
    needs=$(LD_LIBRARY_PATH=$libraries ldd "$libraries/libvulkan_radeon.so")
    missing=$(sed -n 's/ => not found//p' <<<"$needs" | xargs)
    [ -z "$missing" ] || without "it needs $missing; install mesa-vulkan-drivers"
    cat >"$folder/radv.json" <<END
{
    "file_format_version": "1.0.0",
    "ICD": {"api_version": "1.3.0", "library_path": "$libraries/libvulkan_radeon.so"}
}
END
    # VK_ICD_FILENAMES is for older Vulkan loaders. A kernel from the cache has no statistics.
    cat >"$folder/new" <<END
#!/bin/sh
export AMDGPU_GPU_ID="\${AMDGPU_GPU_ID:-navi31}"
export VK_DRIVER_FILES="$folder/radv.json" VK_ICD_FILENAMES="$folder/radv.json"
export MESA_SHADER_CACHE_DISABLE=true RADV_DEBUG="\${RADV_DEBUG:-nocache}"
exec env LD_PRELOAD="$shim" LD_LIBRARY_PATH="$libraries" "\$@"
END
    chmod +x "$folder/new"
    mv "$folder/new" "$run"
fi
echo "$run"
