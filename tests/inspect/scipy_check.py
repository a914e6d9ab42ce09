"""Compares Mann-Whitney tests with SciPy's, read from stdin as JSON lines:

    {"positive": [...], "negative": [...], "auroc": x, "u": x, "p": x}

Prints a line per difference. Exit code 1 if there is one, or if stdin holds no comparison.

    python tests/inspect/scipy_check.py < comparisons.jsonl
"""
import json
import math
import sys

import numpy as np
from scipy.stats import mannwhitneyu

# Relative. SciPy's own rounding reaches about 1e-11 if nearly all values are zero.
TOLERANCES = {"auroc": 1e-12, "u": 1e-12, "p": 1e-10}
# From here down, p-values count as zero.
SMALLEST_P = 1e-300


def expected(positive, negative):
    """SciPy's results, in 64-bit floats: with 32-bit input it computes in 32 bits."""
    x, y = np.array(positive, dtype=np.float64), np.array(negative, dtype=np.float64)
    result = mannwhitneyu(x, y, method="asymptotic")
    u = float(result.statistic)
    return {"auroc": u / (len(x) * len(y)), "u": u, "p": float(result.pvalue)}


def differs(name, actual, wanted):
    if not isinstance(actual, (int, float)) or not math.isfinite(actual):
        return True
    if name == "p" and 0 <= actual <= SMALLEST_P and wanted <= SMALLEST_P:
        return False
    # Written so that SciPy's NaN is a difference too.
    return not abs(actual - wanted) <= TOLERANCES[name] * abs(wanted)


def main():
    comparisons = differences = 0
    for number, line in enumerate(sys.stdin, 1):
        if not line.strip():
            continue
        comparisons += 1
        comparison = json.loads(line)
        for name, wanted in expected(comparison["positive"], comparison["negative"]).items():
            actual = comparison.get(name)
            if differs(name, actual, wanted):
                differences += 1
                print(f"line {number}: {name} is {actual!r}, SciPy has {wanted!r}")
    if comparisons == 0:
        print("no comparison on stdin")
    elif differences == 0:
        print(f"{comparisons} comparisons equal SciPy's")
    return int(comparisons == 0 or differences > 0)


if __name__ == "__main__":
    sys.exit(main())
