#!/usr/bin/env bash
# Fetches Mesa's newest Vulkan drivers and the Khronos validation layer from Debian's unstable suite
# (about 80 MB), and prints the path of a script that runs a program on one of them:
#
#   RUN nouveau 170 PROGRAM…      NVIDIA, chipset 170 (GA100)
#   RUN asahi - PROGRAM…          Apple M1
#   RUN freedreno 740 PROGRAM…    Adreno 740
#   RUN amdgpu navi31 PROGRAM…    AMD
#   RUN lvp - PROGRAM…            llvmpipe, which computes
#
# All but the last compute nothing (see tests/drivers/radv.sh). The suite's own dynamic linker starts
# the program, so nothing is installed. If the packages are not available, says why in one line on
# standard error, prints nothing and succeeds.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
folder=$(mkdir -p "$target" && cd "$target" && pwd)/sid
run=$folder/run

without() {
    echo "note: no packages of Debian's unstable suite ($1): validation layers and the compilers for NVIDIA and Apple do not run" >&2
    exit 0
}

if [ ! -x "$run" ]; then
    rm -rf "$folder"
    mkdir -p "$folder"
    . tests/drivers/debian.sh
    find_debian_mirror "$folder"
    private_apt "$folder" sid
    {
        "${apt[@]}" update
        "${apt[@]}" install --yes --download-only --no-install-recommends \
            mesa-vulkan-drivers mesa-drm-shim vulkan-validationlayers libvulkan1
    } >"$folder/log" 2>&1 || without "apt-get install fails: $(tail -n 1 "$folder/log")"
    for package in "$folder"/cache/archives/*.deb; do
        dpkg --extract "$package" "$folder/package"
    done
    rm -rf "$folder"/{state,cache}

    libraries=$(dirname "$(find "$folder/package" -name libvulkan.so.1)")
    linker=$(find "$folder/package" -name 'ld-linux-*.so.*' | head -n 1)
    [ -n "$linker" ] || without "it has no dynamic linker for this processor"
    for driver in nouveau asahi freedreno radeon lvp; do
        cat >"$folder/$driver.json" <<END
{
    "file_format_version": "1.0.0",
    "ICD": {"api_version": "1.3.0", "library_path": "$libraries/libvulkan_$driver.so"}
}
END
    done
    cat >"$folder/new" <<END
#!/bin/sh
kind=\$1 id=\$2
shift 2
driver=\$kind
case \$kind in
    amdgpu) export AMDGPU_GPU_ID="\$id"; driver=radeon ;;
    nouveau) export NOUVEAU_CHIPSET="\$id" ;;
    freedreno) export FD_GPU_ID="\$id" ;;
esac
preload="--preload $libraries/lib\${kind}_noop_drm_shim.so"
[ "\$kind" != lvp ] || preload=
export VK_DRIVER_FILES="$folder/\$driver.json" VK_ICD_FILENAMES="$folder/\$driver.json"
export VK_LAYER_PATH="\${VK_LAYER_PATH:-$folder/package/usr/share/vulkan/explicit_layer.d}"
export MESA_SHADER_CACHE_DISABLE=true
exec "$linker" --library-path "$libraries" \$preload "\$@"
END
    chmod +x "$folder/new"
    mv "$folder/new" "$run"
fi
echo "$run"
