"""n actors of one thread each against one process with n threads, in turns: throughput.py [N ...]

Prints new tokens per second of the shipped model; the ratio is the median of the rounds' ratios.
Loading is not counted. Measures the build that is installed: use one with --release.
"""

import os
import statistics
import sys
import time

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# By default workers give way to everything else.
os.environ.setdefault("RAY_worker_niceness", "0")

import pyarrow
import ray

import bdh_gpu.ray
from bdh_gpu import batch

OPTIONS = dict(max_new_tokens=64, num_return_sequences=2, temperature=1.0, seed=5)
ROUNDS = 5
ROWS = 64


def main():
    table = pyarrow.Table.from_pylist([{"id": i, "prompt": f"First Citizen {i}:\n"} for i in range(ROWS)])
    ray.init("local", logging_level="warning", include_dashboard=False)
    for count in map(int, sys.argv[1:] or ["1", "2"]):
        alone = batch.Generator(device="cpu", threads=count, **OPTIONS)
        actor = ray.remote(num_cpus=1)(bdh_gpu.ray.Generator)
        actors = [actor.remote(device="cpu", **OPTIONS) for _ in range(count)]
        parts = [table.slice(k * ROWS // count, ROWS // count) for k in range(count)]

        def one():
            return alone.table(table)

        def many():
            return pyarrow.concat_tables(
                ray.get([actor.__call__.remote(part) for actor, part in zip(actors, parts)])
            )

        assert one().equals(many())
        speeds = {one: [], many: []}
        for _ in range(ROUNDS):
            for work in (one, many):
                start = time.perf_counter()
                tokens = sum(work().column("new_tokens").to_pylist())
                speeds[work].append(tokens / (time.perf_counter() - start))
        ratio = statistics.median(many / one for one, many in zip(speeds[one], speeds[many]))
        one, many = (statistics.median(found) for found in speeds.values())
        print(f"{count} cores: one process {one:.0f} tokens/s, actors {many:.0f}, ratio {ratio:.2f}", flush=True)
        for gone in actors:
            ray.kill(gone)


main()
