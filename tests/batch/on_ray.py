"""Ray writes the rows that one process writes while an actor is killed and, with --long, on three
nodes on this machine of which one goes: on_ray.py PROMPTS [--long].
"""

import json
import os
import signal
import tempfile
import time
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# By default workers give way to everything else.
os.environ.setdefault("RAY_worker_niceness", "0")

import pyarrow.parquet
import ray
from ray.cluster_utils import Cluster

import bdh_gpu.ray
from bdh_gpu import batch
from common import OPTIONS, alone, arguments, compare, prompts


def parent(process):
    return int(Path("/proc", str(process), "stat").read_text().rsplit(")", 1)[1].split()[1])


def actors():
    """Processes of this cluster's actors with a model, and the nodes' processes that they belong to."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            node = parent(folder.name)
            if (folder / "cmdline").read_text().startswith("ray::MapWorker(MapBatches(Generator))"):
                if parent(node) == os.getpid():
                    found[int(folder.name)] = node
        except OSError:
            # It has just ended.
            continue
    return found


def start(everything):
    """Three nodes, or, for a quick check, one; returns the cluster and the nodes that may go."""
    options = dict(logging_level="warning", log_to_driver=False)
    if not everything:
        ray.init("local", num_cpus=3, object_store_memory=100 << 20, include_dashboard=False, **options)
        return None, []
    node = {"object_store_memory": 100 << 20}
    # One processor more than actors: where an actor goes whose node has gone.
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False, **node})
    others = [cluster.add_node(num_cpus=1, **node) for _ in range(2)]
    ray.init(address=cluster.address, **options)
    return cluster, others


def raylet(node):
    return node.all_processes["raylet"][0].process.pid


def collect(dataset, fault=None, after=1):
    """A dataset's rows; calls `fault` once so many blocks have come."""
    rows, blocks = [], 0
    for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        rows += table.to_pylist()
        blocks += 1
        if fault and blocks == after:
            fault()
    assert blocks > after, f"only {blocks} blocks: nothing was left to do after the fault"
    return rows


def files(rows, expected):
    """Parquet in, JSON lines out and in again; and ids that Ray makes of rows' places."""
    with tempfile.TemporaryDirectory() as name:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), f"{name}/prompts.parquet")
        options = dict(max_prompt_tokens=100, **OPTIONS)
        prompts = ray.data.read_parquet(f"{name}/prompts.parquet")
        bdh_gpu.ray.generate(prompts, **options).write_json(f"{name}/texts")
        texts = [json.loads(line) for path in Path(name, "texts").iterdir() for line in path.open(encoding="utf-8")]
        compare(texts, expected, "from Parquet to JSON lines")
        named = [
            bdh_gpu.ray.generate(
                ray.data.read_parquet(f"{name}/prompts.parquet", include_row_hash=True, override_num_blocks=blocks),
                id_column="row_hash",
                batch_size=batch_size,
                **options,
            ).take_all()
            for blocks, batch_size in [(1, 500), (4, 90)]
        ]
        first, second = ({(row["id"], row["index"]): row["text"] for row in run} for run in named)
        assert first == second and len(first) == len(expected) and len(set(first.values())) > len(rows)
        added = bdh_gpu.ray.add_ids(ray.data.from_items([{"prompt": "KING:"}, {"prompt": None}]))
        found = {row["id"]: row["prompt"] for row in added.take_all()}
        assert found == {batch.content_id(prompt): prompt for prompt in ("KING:", None)}, found


def main():
    count, everything = arguments()
    rows = prompts(count)
    expected = alone(rows)
    started = time.monotonic()
    cluster, others = start(everything)
    ray.data.DataContext.get_current().enable_progress_bars = False
    blocks = 12 if not everything else 60

    def generate(concurrency, batch_size, order=1):
        dataset = ray.data.from_items(rows[::order], override_num_blocks=blocks)
        return bdh_gpu.ray.generate(
            dataset, max_prompt_tokens=100, concurrency=concurrency, batch_size=batch_size, **OPTIONS
        )

    def kill():
        os.kill(next(iter(actors())), signal.SIGKILL)

    def restarts():
        return sum(int(actor["NumRestarts"]) for actor in ray._private.state.actors().values())

    compare(collect(generate(3 if everything else 2, 8), kill), expected, "an actor was killed")
    assert restarts() == 1, f"{restarts()} actors were started again"
    if everything:
        compare(collect(generate(1, 100, -1)), expected, "one actor, the other way round")

        files(rows, expected)

        def remove():
            node = next(node for node in others if raylet(node) in actors().values())
            cluster.remove_node(node, allow_graceful=False)

        before = restarts()
        compare(collect(generate(3, 20), remove, blocks // 3), expected, "a node went")
        assert sum(node["Alive"] for node in ray.nodes()) == 2
        assert restarts() > before, "no actor was started again"
    scores = bdh_gpu.ray.score(ray.data.from_items([{"text": "To be"}, {"text": None}])).take_all()
    assert [row["scored_tokens"] for row in scores] == [4, 0] and scores[1]["error"] == "the text is null"
    print(f"{time.monotonic() - started:.0f} s on Ray")
    ray.shutdown()
    if cluster:
        cluster.shutdown()


main()
