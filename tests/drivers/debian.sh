# Packages of Debian suites that the system does not list, by way of an apt configuration of their
# own; nothing is installed. To be sourced: the caller defines `without`, which says why something is
# not available and ends the script.

# Sets `mirror` to the system's mirror.
find_debian_mirror() {
    local listed=$1/mirrors
    [ "$(uname -s)" = Linux ] || without "this is not Linux"
    command -v apt-get >/dev/null && command -v dpkg >/dev/null ||
        without "there is no apt-get to fetch it with"
    . /etc/os-release
    [ "$ID" = debian ] || without "this is not Debian"
    find_mirror() {
        apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' >"$listed"
        sed -n "/^$VERSION_CODENAME /{s///p;q}" "$listed"
    }
    mirror=$(find_mirror)
    if [ -z "$mirror" ]; then
        apt-get update >"$1/log" 2>&1 || without "apt-get update fails: $(tail -n 1 "$1/log")"
        mirror=$(find_mirror)
    fi
    [ -n "$mirror" ] || without "apt knows no mirror of $VERSION_CODENAME"
}

# private_apt FOLDER SUITE…: sets `apt` to a command that knows these suites alone. Packages are
# taken from the last one.
private_apt() {
    local folder=$1 keyring=/usr/share/keyrings/debian-archive-keyring.gpg signed suite
    shift
    mkdir -p "$folder"/{state/lists/partial,cache/archives/partial}
    signed=$([ ! -r $keyring ] || echo "[signed-by=$keyring]")
    for suite in "$@"; do
        echo "deb $signed $mirror $suite main"
    done >"$folder/sources.list"
    touch "$folder/status"
    apt=(
        apt-get
        -o Dir::Etc::SourceList="$folder/sources.list"
        -o Dir::Etc::SourceParts=/dev/null
        -o Dir::State="$folder/state"
        -o Dir::State::Status="$folder/status"
        -o Dir::Cache="$folder/cache"
        -o APT::Sandbox::User=
        -o APT::Default-Release="$suite"
        -o Acquire::Languages=none
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
    )
}
