"""Checks the files of a wheel, a source distribution or a crate: contents.py FILE

Prints number and size of its files. Fails if one is missing that users or a build need, if one is
there that is of no use to them, or if the package is larger than its limit.
"""

import re
import sys
import tarfile
import zipfile
from pathlib import Path

MIB = 2**20
MODEL = "models/bdh-shakespeare/model.safetensors"
LICENCES = ["LICENSE-MIT", "LICENSE-APACHE"]
CRATE = ["Cargo.toml", "Cargo.lock", "build.rs", "src/lib.rs", "src/main.rs", "src/server/page/index.html",
         "src/inspect/page/style.css", "shaders/decode/encode.wgsl", MODEL, *LICENCES]
PYTHON = ["__init__.py", "_native.pyi", "py.typed"]
# Tests' data, caches, secrets, settings of editors and of continuous integration.
JUNK = re.compile(r"tests/.*\.(?!rs$|toml$)\w+$|(^|/)(\.github|\.ci|\.vscode|target|node_modules|__pycache__|fuzz)/|"
                  r"\.(png|svg|snap|npz|pt|pyc|ipynb|orig\.\w+)$|rust-toolchain|(^|/)\.env")


def wheel(path):
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry.file_size for entry in archive.infolist()}
    wanted = [f"bdh_gpu/{name}" for name in PYTHON]
    wanted += [next((name for name in entries if name.endswith(f"/{licence}")), licence) for licence in LICENCES]
    return entries, wanted, 15 * MIB


def source(path):
    with tarfile.open(path) as archive:
        entries = {entry.name.split("/", 1)[1]: entry.size for entry in archive.getmembers() if entry.isfile()}
    if path.suffix == ".crate":
        return entries, CRATE, 5 * MIB
    extra = ["pyproject.toml", "PKG-INFO", "python/Cargo.toml", "python/src/lib.rs"]
    return entries, CRATE + extra + [f"bdh_gpu/{name}" for name in PYTHON], 5 * MIB


def main():
    path = Path(sys.argv[1])
    entries, wanted, limit = (wheel if path.suffix == ".whl" else source)(path)
    size = path.stat().st_size
    problems = [f"lacks {name}" for name in wanted if name not in entries]
    problems += [f"has {name}, which is of no use to its users" for name in entries if JUNK.search(name)]
    if size > limit:
        problems.append(f"takes {size} bytes, expected at most {limit}")
    for problem in problems:
        print(f"error: {path.name} {problem} (packaging/contents.py)", file=sys.stderr)
    print(f"{path.name}: {size / MIB:.1f} MiB, {len(entries)} files of {sum(entries.values()) / MIB:.1f} MiB")
    sys.exit(bool(problems))


main()
