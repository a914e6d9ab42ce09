"""The work that clusters are given, and what one process makes of it."""

import collections
import sys

from bdh_gpu import batch

OPTIONS = dict(max_new_tokens=12, num_return_sequences=2, temperature=1.0, seed=5)


def prompts(count):
    """Rows with whole numbers as ids, a column that is only carried along, and two rows that fail."""
    speakers = ["KING", "First Citizen", "ROMEO", "A", "Second Murderer"]
    rows = [
        {"id": 7 * i, "prompt": f"{speakers[i % 5]} {i % 11}:\n" + "O, " * (i % 4), "tag": f"t{i}"} for i in range(count)
    ]
    rows[3]["prompt"] = None
    rows[count // 2]["prompt"] = "too long " * 20
    return rows


def key(row):
    return row["id"], row["index"]


def alone(rows):
    """What one process writes, in order."""
    return sorted(batch.generate(rows, device="cpu", max_prompt_tokens=100, **OPTIONS), key=key)


def compare(got, expected, what):
    """None lost, none doubled, all equal."""
    got = sorted(got, key=key)
    counts = collections.Counter(map(key, got))
    doubled = [name for name, count in counts.items() if count > 1]
    lost = [key(row) for row in expected if key(row) not in counts]
    assert not doubled, f"{what}: doubled {doubled[:5]}"
    assert not lost, f"{what}: lost {lost[:5]}"
    for ours, theirs in zip(got, expected):
        assert ours == theirs, f"{what}: {ours} is not {theirs}"
    assert len(got) == len(expected) and sum(row["error"] is not None for row in got) == 2, what
    print(f"{what}: {len(got)} rows, equal to one process's", flush=True)


def arguments():
    """How many prompts, and whether everything is to be tried."""
    return int(sys.argv[1]), "--long" in sys.argv
