# What the scripts of this folder share. Sourced from the repository's root.
#
# target   cargo's target directory
# work     a folder in it for tools and intermediate files
# out      the folder in it that finished packages go to
# version  the version in Cargo.toml
# triple   the platform that packages are built for: TARGET, or else this machine's

export CARGO_INCREMENTAL=0 PIP_DISABLE_PIP_VERSION_CHECK=1
target=$(pwd)/target
[ -z "${CARGO_TARGET_DIR:-}" ] || target=$(mkdir -p "$CARGO_TARGET_DIR" && cd "$CARGO_TARGET_DIR" && pwd)
export CARGO_TARGET_DIR=$target
work=$target/packages
out=$work/dist
mkdir -p "$out"
version=$(sed -n '/^\[package\]/,/^version = /s/^version = "\(.*\)"/\1/p' Cargo.toml)
triple=${TARGET:-$(rustc -vV | sed -n 's/^host: //p')}

# The C library's version that Linux packages run on: the oldest that Rust itself supports.
GLIBC=2.17

# The program statically linked would start on any Linux, but musl's dlopen then fails, and without
# it there is no Vulkan. Zig links against the symbols of an old glibc instead.
case $triple in
    *-linux-gnu) zig=true ;;
    *) zig=false ;;
esac

fail() {
    echo "error: $*" >&2
    exit 1
}

# Makes a virtual environment with packages of PyPI, and puts it in front of PATH: tools [PACKAGE…]
tools() {
    local venv=$work/venv python
    python=$(command -v "${PYTHON:-python3}" || command -v python) || fail "there is no Python; install 3.9 or newer"
    [ -e "$venv/pyvenv.cfg" ] || "$python" -m venv "$venv"
    if [ -d "$venv/Scripts" ]; then
        PATH=$venv/Scripts:$PATH
    else
        PATH=$venv/bin:$PATH
    fi
    [ $# -eq 0 ] || python -m pip install --quiet "$@"
}

# Newest version of glibc whose symbols a file wants.
glibc_of() {
    objdump -T "$1" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1 | sed 's/GLIBC_//'
}

# Fails if a file needs a newer glibc than GLIBC.
check_glibc() {
    local found
    found=$(glibc_of "$1")
    [ -n "$found" ] || fail "$1 names no version of glibc; expected a program or library linked against it"
    [ "$(printf '%s\n' "$found" "$GLIBC" | sort -V | tail -n 1)" = "$GLIBC" ] ||
        fail "$1 needs glibc $found, expected at most $GLIBC; link it by zig (packaging/common.sh)"
    echo "$(basename "$1"): needs glibc $found"
}

# Builds the program of a package, and sets `program` to its path.
build_program() {
    local suffix=""
    case $triple in
        *windows*) suffix=.exe ;;
    esac
    if $zig; then
        tools cargo-zigbuild ziglang
        cargo-zigbuild zigbuild --profile dist --locked --package bdh-gpu --target "$triple.$GLIBC"
    else
        cargo build --profile dist --locked --package bdh-gpu --target "$triple"
    fi
    program=$target/$triple/dist/bdh-gpu$suffix
    ! $zig || check_glibc "$program"
}

# Writes manual pages, completions and licences: extras PROGRAM FOLDER
extras() {
    local program=$1 folder=$2
    "$program" man "$folder/man"
    mkdir -p "$folder/completions"
    "$program" completions bash >"$folder/completions/bdh-gpu.bash"
    "$program" completions zsh >"$folder/completions/_bdh-gpu"
    "$program" completions fish >"$folder/completions/bdh-gpu.fish"
    "$program" completions powershell >"$folder/completions/_bdh-gpu.ps1"
    python packaging/licences.py "$triple" >"$folder/THIRD-PARTY.txt"
}
