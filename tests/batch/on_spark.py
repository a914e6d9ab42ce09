"""Spark in local mode writes the rows that one process writes, while Python workers are killed:
on_spark.py PROMPTS [--long].
"""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from pyspark.sql import SparkSession

import bdh_gpu.spark
from common import OPTIONS, alone, arguments, compare, prompts

OPTIONS = {**OPTIONS, "max_prompt_tokens": 100}


class Interrupted:
    """A function whose worker is killed once, after its first batch, in one partition."""

    def __init__(self, function, marker, partition):
        self.function, self.marker, self.partition = function, str(marker), partition

    def __call__(self, batches):
        from pyspark import TaskContext

        for batch in self.function(batches):
            yield batch
            if TaskContext.get().partitionId() == self.partition:
                try:
                    os.close(os.open(self.marker, os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    continue
                os.kill(os.getpid(), signal.SIGKILL)


def collected(frame):
    """A frame's rows, with seeds as the whole numbers that they are."""
    rows = [row.asDict() for row in frame.collect()]
    return [{**row, "seed": None if row["seed"] is None else int(row["seed"])} for row in rows]


def main():
    count, everything = arguments()
    rows = prompts(count)
    expected = alone(rows)
    os.environ["PYSPARK_PYTHON"] = sys.executable
    # 2 threads, and up to 4 failures of a task. Small batches: a partition is to have several.
    builder = SparkSession.builder.master("local[2,4]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", "8" if count < 500 else "50")
    builder = builder.config("spark.driver.host", "127.0.0.1").config("spark.log.level", "ERROR")
    builder = builder.config("spark.ui.showConsoleProgress", "false")
    spark = builder.getOrCreate()
    started = time.monotonic()
    schema = "id bigint, prompt string, tag string"
    frame = spark.createDataFrame([tuple(row.values()) for row in rows], schema).repartition(3)
    written = bdh_gpu.spark.generate_schema(frame.schema)
    with tempfile.TemporaryDirectory() as name:
        marker = Path(name) / "killed"
        function = Interrupted(bdh_gpu.spark.generate_arrow(device="cpu", **OPTIONS), marker, 1)
        compare(collected(frame.mapInArrow(function, written)), expected, "a worker was killed, mapInArrow")
        assert marker.exists(), "no worker was killed"
        if everything:
            marker = Path(name) / "killed-again"
            function = Interrupted(bdh_gpu.spark.generate_pandas(**OPTIONS), marker, 0)
            frames = frame.repartition(7).mapInPandas(function, written)
            compare(collected(frames), expected, "a worker was killed, mapInPandas")
            assert marker.exists(), "no worker was killed"
            folder = str(Path(name) / "texts")
            bdh_gpu.spark.generate(frame.repartition(2), **OPTIONS).write.parquet(folder)
            compare(collected(spark.read.parquet(folder)), expected, "by way of Parquet")
    texts = spark.createDataFrame([("To be",), (None,)], "text string")
    scores = sorted((row.scored_tokens, row.error) for row in bdh_gpu.spark.score(texts).collect())
    assert scores == [(0, "the text is null"), (4, None)], scores
    print(f"{time.monotonic() - started:.0f} s in Spark")
    spark.stop()


main()
