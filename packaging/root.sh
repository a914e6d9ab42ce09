#!/usr/bin/env bash
# Installs packages into a bare Debian, which has Python but no compiler and no graphics driver, and
# runs them there: root.sh SUITE [WHEEL] [DEB]
#
# SUITE is a release of Debian: bookworm, bullseye. A Python older than 3.9 leaves out the wheel.
# Needs root, debootstrap, and a mirror of Debian among apt's sources. Removes what it has made.
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/common.sh

suite=$1
shift
[ "$(id -u)" -eq 0 ] || fail "debootstrap and chroot need root"
command -v debootstrap >/dev/null || fail "there is no debootstrap; install the package debootstrap"
mirror=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(COMPONENT)' 'Identifier: Packages' |
    awk '$2 == "Debian" && $3 == "main" && $1 !~ /security/ { print $1; exit }')
[ -n "$mirror" ] || fail "apt has no sources of Debian's main component"

root=$work/root-$suite
rm -rf --one-file-system "$root"
mkdir -p "$root"
# It fails if something is still mounted there.
trap 'rm -rf --one-file-system "$root"' EXIT
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$suite" "$root" "$mirror" \
    >"$work/debootstrap.log" || fail "debootstrap $suite fails: $(tail -n 1 "$work/debootstrap.log")"

# Its way to the network, and to the index of packages, is this machine's.
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
for file in /etc/hosts /etc/pip.conf "$HOME/.pip/pip.conf" "$HOME/.config/pip/pip.conf" "${PIP_CERT:-}" \
    "${SSL_CERT_FILE:-}"; do
    [ ! -f "$file" ] || install -D -m 644 "$file" "$root$file"
done
inside() {
    chroot "$root" /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 "$@"
}
echo "$suite: glibc $(inside ldd --version | sed -n '1s/.* //p'), $(inside python3 --version)"
for tool in cc gcc cargo rustc; do
    ! inside sh -c "command -v $tool" || fail "the bare system has $tool, expected no compiler"
done

for package in "$@"; do
    cp "$package" "$root/tmp"
    name=$(basename "$package")
    case $name in
        *.whl)
            if ! inside python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))'; then
                echo "note: $suite's Python is too old for $name" >&2
                continue
            fi
            cp python/README.md packaging/quick_start.py "$root/tmp"
            inside python3 -m venv /opt/wheel
            # Of bdh-gpu this file alone; dependencies come from the index.
            inside /opt/wheel/bin/pip install --quiet "/tmp/$name"
            inside /opt/wheel/bin/python /tmp/quick_start.py /tmp/README.md
            ;;
        *.deb)
            inside dpkg -i "/tmp/$name" >"$work/dpkg.log" || fail "dpkg -i fails: $(tail -n 1 "$work/dpkg.log")"
            text=$(inside bdh-gpu generate --prompt "To be" --seed 7 --max-new-tokens 40 --device cpu)
            echo "$text"
            [[ $text == "To be"?* ]] || fail "bdh-gpu generate does not continue the prompt"
            inside bdh-gpu devices --quiet
            # A minimal Debian leaves out the folders of documentation, but for copyright.
            for file in lib/systemd/system/bdh-gpu.service share/doc/bdh-gpu/copyright \
                share/bash-completion/completions/bdh-gpu; do
                [ -f "$root/usr/$file" ] || fail "$name installs no /usr/$file"
            done
            inside dpkg --listfiles bdh-gpu | grep -q '/man1/bdh-gpu.1.gz$' || fail "$name has no manual page"
            inside dpkg --purge bdh-gpu >"$work/dpkg.log"
            [ ! -e "$root/usr/bin/bdh-gpu" ] || fail "dpkg --purge leaves /usr/bin/bdh-gpu behind"
            ;;
        *) fail "$package is neither a wheel nor a Debian package" ;;
    esac
done
