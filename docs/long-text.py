#!/usr/bin/env python3
"""Measures the tables of docs/long-text.md, and writes them into it.

    docs/long-text.py TEXT [PROGRAM]          (default: target/release/bdh-gpu)

TEXT is tiny Shakespeare. The tables lie between lines that begin with `<!-- table`; everything else
of the document stays as it is. Settings that the program has no option for are left out. BDH_FLAGS
holds further options for every run, for instance "--model mine --device gpu". Only the standard
library is needed.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DOCUMENT = Path(__file__).resolve().with_suffix(".md")
PROGRAM = DOCUMENT.parents[1] / "target/release/bdh-gpu"

# What the model has not seen: all after its training part.
TRAINED_BYTES = 1_003_854

LONGEST = 8192
LENGTHS = [256, 512, 1024, 2048, 4096, 8192]
DISTANCES = [64, 128, 192, 256, 384, 512, 768, 1024, 2048]
NEEDLES = 32

WINDOWS = [128, 192, 256, 384, 512, 1024]
SETTINGS = [
    ("full", ["--context", "full"]),
    ("τ = B/4 = 64", ["--forget-tau", "64"]),
    ("τ = B/2 = 128, the default", []),
    ("τ = B = 256", ["--forget-tau", "256"]),
    ("τ = 2B = 512", ["--forget-tau", "512"]),
] + [(f"window {size}", ["--window", str(size)]) for size in WINDOWS]


def run(program, *arguments):
    """A command's result, as JSON."""
    command = [program, *arguments, "--format", "json", "--quiet", *shlex.split(os.environ.get("BDH_FLAGS", ""))]
    start = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        sys.exit(f"error: {shlex.join(map(str, command))} ended with exit code {done.returncode}")
    print(f"{time.monotonic() - start:6.1f} s  {shlex.join(map(str, command))}", file=sys.stderr)
    return json.loads(done.stdout)


def table(heading, rows):
    """A table in Markdown: names to the left, numbers to the right."""
    lines = [heading, ["---"] + ["---:"] * (len(heading) - 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def by_position(program, text, settings):
    """Bits per byte: a row per setting, a column per range of positions."""
    rows = []
    for name, flags in settings:
        score = run(program, "score", "--file", text, f"--by-position={LONGEST}", *flags)
        heading = [f"{r['first']:,}–{r['last']:,}" for r in score["ranges"]]
        cells = [f"{r['bits_per_byte']:.3f} ± {r['bits_per_byte_error']:.3f}" for r in score["ranges"]]
        rows.append([name, *cells])
    return table(["bits per byte at positions", *heading], rows)


def needles(program, text, settings):
    """Bits that the needle's word saves: by distance in the longest context, and by length at two distances."""
    found = {}
    for name, flags in settings:
        report = run(
            program, "needle", "--file", text, "--needles", str(NEEDLES), *flags,
            "--lengths", ",".join(map(str, LENGTHS)), "--distances", ",".join(map(str, DISTANCES)),
        )  # fmt: skip
        found[name] = {(cell["length"], cell["distance"]): cell for cell in report["cells"]}

    def rows(key, places):
        def show(cell):
            if cell is None:
                return "–"
            return f"{cell[key]:+.2f} ± {cell[key + '_error']:.2f}" if key != "hits" else str(cell["hits"])

        return [[name, *(show(cells.get(place)) for place in places)] for name, cells in found.items()]

    tables = {}
    for name, key in [("gained", "gained"), ("looked-up", "looked_up"), ("hits", "hits")]:
        places = [(LONGEST, distance) for distance in DISTANCES]
        tables[f"{name}-by-distance"] = table(["distance", *map(str, DISTANCES)], rows(key, places))
        places = [(length, 128) for length in LENGTHS]
        tables[f"{name}-by-length"] = table(["length", *(f"{length:,}" for length in LENGTHS)], rows(key, places))
    return tables


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    program = Path(sys.argv[2]) if len(sys.argv) > 2 else PROGRAM
    help_text = subprocess.run([program, "score", "--help"], capture_output=True, text=True, check=True).stdout
    settings = [s for s in SETTINGS if not s[1] or re.search(rf"{s[1][0]}\b", help_text)]
    left_out = [name for name, flags in SETTINGS if (name, flags) not in settings]
    if left_out:
        print(f"note: the program has no option for {', '.join(left_out)}: left out", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "held-out.txt"
        text.write_bytes(Path(sys.argv[1]).read_bytes()[TRAINED_BYTES:])
        tables = {"by-position": by_position(program, text, settings), **needles(program, text, settings)}
    document = DOCUMENT.read_text()
    for name in re.findall(r"<!-- table (\S+) -->", document):
        pattern = rf"(<!-- table {name} -->\n).*?(\n<!-- end -->)"
        document = re.sub(pattern, lambda m, name=name: m[1] + "\n" + tables[name] + m[2], document, flags=re.DOTALL)
    DOCUMENT.write_text(document)


if __name__ == "__main__":
    main()
