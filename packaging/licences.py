"""Prints the licences of every crate inside the program: licences.py TARGET

The texts are those that come with the crates, each once, below the crates that it belongs to. A
crate that comes without one is listed with the name of its licence.
"""

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

FILES = re.compile(r"(licen[cs]e|copying|notice|copyright|unlicense)([-_.].*)?", re.IGNORECASE)


def crates(target):
    """Packages that the program is linked with: no build scripts, macros, tests."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", target]
    metadata = json.loads(subprocess.check_output(command))
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = next(package["id"] for package in packages.values() if package["name"] == "bdh-gpu" and not package["source"])
    found, todo = {root}, [root]
    while todo:
        for dependency in nodes[todo.pop()]["deps"]:
            package = packages[dependency["pkg"]]
            is_macro = any("proc-macro" in target["kind"] for target in package["targets"])
            is_linked = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            if is_linked and not is_macro and dependency["pkg"] not in found:
                found.add(dependency["pkg"])
                todo.append(dependency["pkg"])
    found.remove(root)
    return sorted((packages[key] for key in found), key=lambda package: (package["name"], package["version"]))


def main():
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    owners, without = defaultdict(list), []
    for package in crates(sys.argv[1]):
        title = f"{package['name']} {package['version']} ({package['license'] or 'see its text'})"
        folder = Path(package["manifest_path"]).parent
        texts = [path for path in sorted(folder.iterdir()) if path.is_file() and FILES.fullmatch(path.name)]
        for path in texts:
            text = path.read_text(encoding="utf-8", errors="replace")
            owners["\n".join(line.rstrip() for line in text.splitlines()).strip("\n")].append(title)
        if not texts:
            without.append(title)
    print("The program contains these crates. Their licences are below.")
    for text, titles in sorted(owners.items(), key=lambda item: item[1]):
        print("\n" + "=" * 80 + "\n" + "\n".join(dict.fromkeys(titles)) + "\n" + "-" * 80 + "\n" + text)
    if without:
        print("\n" + "=" * 80 + "\nCrates that come without a text:\n" + "\n".join(without))


main()
