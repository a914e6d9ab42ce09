#!/usr/bin/env python3
"""Measures the tables of docs/long-text.md, and writes them into it.

    docs/long-text.py TEXT [PROGRAM]          (default: target/release/bdh-gpu)

TEXT is tiny Shakespeare. The tables lie between lines that begin with `<!-- table`; everything else
of the document stays as it is. Settings that the program has no option for are left out. BDH_FLAGS
holds further options for every run, for instance "--model mine --device gpu", and BDH_JOBS the
number of runs at the same time. Only the standard library is needed.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

DOCUMENT = Path(__file__).resolve().with_suffix(".md")
PROGRAM = DOCUMENT.parents[1] / "target/release/bdh-gpu"

# What the model has not seen: all after its training part.
TRAINED_BYTES = 1_003_854

PIECE = 8192
LENGTHS = [256, 1024, 8192]
DISTANCES = [64, 128, 256, 512, 1024]
NEEDLES = 6

WINDOWS = [64, 128, 256, 512]
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
    line = shlex.join(map(str, command))
    if done.returncode != 0:
        raise SystemExit(f"error: {line} ended with exit code {done.returncode}")
    print(f"{time.monotonic() - start:6.1f} s  {line}", file=sys.stderr)
    return json.loads(done.stdout)


def table(heading, rows):
    """A table in Markdown: names to the left, numbers to the right."""
    lines = [heading, ["---"] + ["---:"] * (len(heading) - 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def by_position(reports):
    """Bits per byte: a row per setting, a column per range of positions."""
    rows = []
    for name, report in reports.items():
        heading = [f"{r['first']:,}–{r['last']:,}" for r in report["ranges"]]
        cells = [f"{r['bits_per_byte']:.3f} ± {r['bits_per_byte_error']:.3f}" for r in report["ranges"]]
        rows.append([name, *cells])
    return table(["position", *heading], rows)


def needles(reports, length, key):
    """Needles found, or bits saved, in contexts of one length: a row per setting, a column per distance."""
    rows = []
    for name, report in reports.items():
        cells = {c["distance"]: c for c in report["cells"] if c["length"] == length}
        if key == "hits":
            shown = {distance: f"{c['hits']} of {c['needles']}" for distance, c in cells.items()}
        else:
            shown = {distance: f"{c[key]:+.2f} ± {c[key + '_error']:.2f}" for distance, c in cells.items()}
        rows.append([name, *(shown.get(distance, "–") for distance in DISTANCES)])
    return table(["distance", *(f"{distance:,}" for distance in DISTANCES)], rows)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    program = Path(sys.argv[2]) if len(sys.argv) > 2 else PROGRAM
    help_text = subprocess.run([program, "score", "--help"], capture_output=True, text=True, check=True).stdout
    settings = [s for s in SETTINGS if not s[1] or re.search(rf"{s[1][0]}\b", help_text)]
    left_out = [name for name, flags in SETTINGS if (name, flags) not in settings]
    if left_out:
        print(f"note: the program has no option for {', '.join(left_out)}: left out", file=sys.stderr)
    lengths, distances = (",".join(map(str, numbers)) for numbers in (LENGTHS, DISTANCES))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(int(os.environ.get("BDH_JOBS", "1"))) as pool:
        text = Path(folder) / "held-out.txt"
        text.write_bytes(Path(sys.argv[1]).read_bytes()[TRAINED_BYTES:])
        commands = {
            "score": ["--file", text, f"--by-position={PIECE}"],
            "needle": ["--file", text, "--needles", str(NEEDLES), "--lengths", lengths, "--distances", distances],
        }
        started = {
            command: {name: pool.submit(run, program, command, *arguments, *flags) for name, flags in settings}
            for command, arguments in commands.items()
        }
        scores, found = ({name: run.result() for name, run in runs.items()} for runs in started.values())
    tables = {"by-position": by_position(scores)}
    for length in LENGTHS:
        for key in ("hits", "gained", "looked_up"):
            tables[f"{key}-{length}"] = needles(found, length, key)
    document = DOCUMENT.read_text()
    for name in re.findall(r"<!-- table (\S+) -->", document):
        pattern = rf"(<!-- table {name} -->\n).*?(\n<!-- end -->)"
        document = re.sub(pattern, lambda m, name=name: m[1] + "\n" + tables[name] + m[2], document, flags=re.DOTALL)
    DOCUMENT.write_text(document)


if __name__ == "__main__":
    main()
