# Short names for the project's commands: https://just.systems. Every recipe is one line.

# Lists the recipes.
default:
    @just --list --unsorted

# Builds the program, optimised.
build:
    cargo build --release

# Runs every test; without a graphics adapter, it installs a software one (Debian, as root).
test:
    ./test.sh

# Runs every test, and those that need compilers and layers from elsewhere.
long:
    ./test.sh --long

# Checks everything that a change has to pass: format, lints, documentation, tests.
check:
    .ci/run

# Runs the tests of one file of tests/, for instance `just only api`.
only name *arguments:
    cargo test --test {{ name }} -- {{ arguments }}

# Builds the npm package, and the page for a browser in web/dist.
web:
    web/build.sh

# Makes every package of this platform, and tries them in bare Debian systems (Debian, as root).
packages:
    packaging/check.sh --long

# Formats all code.
fmt:
    cargo fmt --all

# Checks code as continuous integration does.
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# Builds the documentation of the library.
doc:
    cargo doc --workspace --exclude vulkan-faults --no-deps --lib

# Compares every kernel with its twin on this machine's adapter.
verify *arguments:
    cargo run --release -- verify {{ arguments }}

# Measures the shipped model.
bench *arguments:
    cargo run --release -- bench {{ arguments }}

# Draws docs/session.svg with the release build.
recording:
    docs/recording/make.py

# Measures docs/long-text.md anew on tiny Shakespeare, with the release build.
long-text text:
    docs/long-text.py {{ text }}
