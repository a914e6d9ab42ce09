# Tools of tests in JavaScript. Sourced, after the script has defined `without`, which says in one
# line why a check is left out, and ends it.

# Installs commands that are missing, as packages of Debian and its kin: need WORK [chromium]
#
# npm, with Node.js, is always needed. CHROMIUM names another browser. WORK is for the log.
need() {
    local work=$1 wanted=()
    command -v npm >/dev/null || wanted+=(nodejs npm)
    [ "${2:-}" != chromium ] || [ -x "${CHROMIUM:-/usr/bin/chromium}" ] || wanted+=(chromium)
    [ ${#wanted[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ] || without "install ${wanted[*]}"
    {
        apt-get update
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${wanted[@]}"
    } >"$work/log" 2>&1 || without "apt-get install ${wanted[*]} fails: $(tail -n 1 "$work/log")"
}

# Installs the packages of a folder's lock file: packages FOLDER WORK
#
# Returns 1 if they are there already.
packages() {
    local folder=$1 work=$2
    ! cmp -s "$folder/package-lock.json" "$work/installed.json" || return 1
    cp "$folder/package.json" "$folder/package-lock.json" "$work"
    (cd "$work" && npm ci --ignore-scripts --no-audit --no-fund --fetch-retries=1) \
        >"$work/log" 2>&1 || without "npm ci fails: $(grep -m 1 -i err "$work/log")"
    cp "$folder/package-lock.json" "$work/installed.json"
}
