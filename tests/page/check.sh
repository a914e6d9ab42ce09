#!/usr/bin/env bash
# Uses the inspector's pages in Chromium, as a person would: check.sh [SCREENSHOTS]
#
# Needs the program in CARGO_TARGET_DIR. Installs Chromium, and Node.js with npm, if they are missing
# (Debian and its kin, as root; CHROMIUM names another browser), and npm packages into the target
# directory. If that fails, prints one line that says why and succeeds.
set -euo pipefail

screenshots=${1:+$(realpath -m "$1")}
cd "$(dirname "$0")/../.."
target=$(realpath "${CARGO_TARGET_DIR:-target}")
page=$target/page
mkdir -p "$page"

without() {
    echo "note: the inspector's page is not used in a browser ($1)" >&2
    exit 0
}

. tests/npm.sh
need "$page" chromium
packages tests/page "$page" || true
# A module finds packages beside itself only.
cp tests/page/*.mjs "$page"

# A play, letters of several bytes, characters that act on the text around them, and HTML.
{
    cat <<'END'
First Citizen:
Before we proceed any further, hear me speak.

All:
Speak, speak.

First Citizen:
You are all resolved rather to die than to famish?

All:
Resolved. resolved.

First Citizen:
First, you know Caius Marcius is chief enemy to the people. </script><!-- <img src=x>
END
    printf 'Na\xc3\xafve \xe6\xbc\xa2\xe5\xad\x97 \xf0\x9f\x92\xb6 \xe2\x80\xae\xe2\x81\xa6\xe2\x80\xa8.\n'
} >"$page/text.txt"
rm -rf "$page/atlas"
"$target/debug/bdh-gpu" inspect --device cpu --quiet --prompt-file "$page/text.txt" --html "$page/trace.html"
"$target/debug/bdh-gpu" inspect --device cpu --quiet --corpus "$page/text.txt" --output "$page/atlas"

node "$page/check.mjs" "$page/trace.html" "$page/atlas" ${screenshots:+"$screenshots"}
