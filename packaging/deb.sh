#!/usr/bin/env bash
# Makes a Debian package: the program, its manual pages and completions, and a service that is not
# enabled. TARGET names another platform than this machine's. Needs Rust, Python 3.9 or newer, and
# dpkg-deb; if lintian is installed, it checks the package.
#
# The last line of the output is the package's path.
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/common.sh

case $triple in
    x86_64-*-linux-gnu) architecture=amd64 ;;
    aarch64-*-linux-gnu) architecture=arm64 ;;
    *) fail "there are no Debian packages for $triple; expected x86_64 or aarch64, linux-gnu" ;;
esac
# The files' times: packages are reproducible.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
maintainer=${DEB_MAINTAINER:-bdh-gpu contributors <bdh-gpu@localhost>}
# The program's version, and the package's.
revision=$version-1
command -v dpkg-deb >/dev/null || fail "there is no dpkg-deb; install the package dpkg"

tools
build_program
root=$work/deb
rm -rf "$root" "$work/deb-extras"
mkdir -p "$root/DEBIAN" "$work/deb-extras"
extras "$program" "$work/deb-extras"

# Installs a file that everybody may read: put FILE DESTINATION
put() {
    install -D -m 644 "$1" "$root/usr/$2"
}
# The same, compressed without its name and time.
put_gz() {
    put "$1" "$2"
    gzip -9 -n "$root/usr/$2"
}

install -D -m 755 "$program" "$root/usr/bin/bdh-gpu"
for page in "$work"/deb-extras/man/*.1; do
    put_gz "$page" "share/man/man1/$(basename "$page")"
done
completions=$work/deb-extras/completions
put "$completions/bdh-gpu.bash" share/bash-completion/completions/bdh-gpu
put "$completions/_bdh-gpu" share/zsh/vendor-completions/_bdh-gpu
put "$completions/bdh-gpu.fish" share/fish/vendor_completions.d/bdh-gpu.fish
put deploy/bdh-gpu.service lib/systemd/system/bdh-gpu.service
put README.md share/doc/bdh-gpu/README.md
put_gz CHANGELOG.md share/doc/bdh-gpu/changelog
cat >"$work/changelog" <<END
bdh-gpu ($revision) stable; urgency=medium

  * Release $version; changelog.gz says what is new.

 -- $maintainer  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
END
put_gz "$work/changelog" share/doc/bdh-gpu/changelog.Debian
put_gz "$work/deb-extras/THIRD-PARTY.txt" share/doc/bdh-gpu/THIRD-PARTY.txt
{
    cat <<END
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: bdh-gpu
Comment: Licences of the crates inside the program are in THIRD-PARTY.txt.gz.

Files: *
Copyright: $(date -u -d "@$SOURCE_DATE_EPOCH" +%Y) the contributors to bdh-gpu
License: Expat or Apache-2.0

License: Apache-2.0
 On Debian systems, the text is in /usr/share/common-licenses/Apache-2.0.

License: Expat
END
    sed 's/^$/./; s/^/ /' LICENSE-MIT
} >"$work/copyright"
put "$work/copyright" share/doc/bdh-gpu/copyright

# The program searches for Vulkan's loader itself, and runs without it.
cat >"$root/DEBIAN/control" <<END
Package: bdh-gpu
Version: $revision
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $(du -sk "$root/usr" | cut -f 1)
Depends: libc6 (>= $GLIBC)
Recommends: ca-certificates, libvulkan1, mesa-vulkan-drivers | vulkan-icd
Section: science
Priority: optional
Description: run Baby Dragon Hatchling (BDH) language models
 Continues texts on any graphics card that speaks Vulkan, and on the CPU,
 with a small trained model inside the program. It also judges texts, serves
 the OpenAI API, shows which neurons fire, and converts checkpoints.
END
(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
find "$root" -type d -exec chmod 755 {} +

package=$out/bdh-gpu_${revision}_$architecture.deb
dpkg-deb --build --root-owner-group -Zxz "$root" "$package" >/dev/null
if command -v lintian >/dev/null; then
    # The default maintainer has no address, and what is not Debian's closes no bug of theirs.
    ignored=bogus-mail-host,bogus-mail-host-in-debian-changelog,initial-upload-closes-no-bugs
    lintian --allow-root --fail-on error,warning --suppress-tags "$ignored" "$package"
fi
echo "$package"
