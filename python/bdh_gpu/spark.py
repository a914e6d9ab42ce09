"""Texts and scores for the rows of a Spark DataFrame, with one model per Python worker.

    import bdh_gpu.spark

    prompts = spark.read.parquet("prompts/")        # columns id and prompt
    texts = bdh_gpu.spark.generate(prompts, "path/to/a/model", max_new_tokens=200, seed=1)
    texts.write.parquet("texts/")

The columns are those of bdh_gpu.batch; seed is a decimal(20), as Spark reads unsigned 64-bit numbers
of Parquet files. A row's texts depend on the seed, its id and its prompt, so tasks that Spark runs
again have the same rows as before. Ids made by monotonically_increasing_id change when partitions
do; without a column that names a row, take a hash of its content: sha2(col("prompt"), 256).

A worker stays from task to task (spark.python.worker.reuse) and keeps its last model. device="auto"
is the graphics card that Spark has assigned to the task (spark.task.resource.gpu.amount), or else
the CPU with spark.task.cpus threads.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Optional, Union

from ._place import Source
from ._rows import Generation, Scoring, Worker, check_columns

__all__ = [
    "generate",
    "generate_arrow",
    "generate_pandas",
    "generate_schema",
    "score",
    "score_arrow",
    "score_pandas",
    "score_schema",
]

# The worker process's model: its process, job, source and place, and the worker.
_kept: Optional[tuple[Any, Worker]] = None


def _worker(job: Any, source: Source) -> Worker:
    """The job on the model that this process has loaded, which is loaded if it is another one."""
    from pyspark import TaskContext

    global _kept
    task = TaskContext.get()
    cpus, gpus = None, None
    if task is not None:
        resources = task.resources()
        cpus, gpus = task.cpus(), list(resources["gpu"].addresses) if "gpu" in resources else []
    place = (os.getpid(), job, source, cpus, gpus)
    if _kept is None or _kept[0] != place:
        # The memory of the last one first: two may be too many.
        _kept = None
        _kept = (place, Worker(job, source, cpus, gpus))
    return _kept[1]


class _Pandas:
    """What mapInPandas is given: plain data, so that it travels."""

    def __init__(self, job: Any, source: Source) -> None:
        self.job, self.source = job, source

    def __call__(self, frames: Iterator[Any]) -> Iterator[Any]:
        for frame in frames:
            result = _worker(self.job, self.source).frame(frame)
            for name, kind in self.job.WRITES.items():
                if kind == "uint64":
                    column = self.job.prefix + name
                    known = result[column].notna()
                    result[column] = [Decimal(int(v)) if k else None for v, k in zip(result[column], known)]
            yield result


class _Arrow:
    """What mapInArrow is given."""

    def __init__(self, job: Any, source: Source) -> None:
        self.job, self.source = job, source

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        import pyarrow

        for batch in batches:
            result = _worker(self.job, self.source).table(pyarrow.Table.from_batches([batch]))
            for name, kind in self.job.WRITES.items():
                if kind == "uint64":
                    number = result.schema.get_field_index(self.job.prefix + name)
                    column = result.column(number).cast(pyarrow.decimal128(20, 0))
                    result = result.set_column(number, self.job.prefix + name, column)
            yield from result.to_batches()


def generate_pandas(
    model: Any = None,
    *,
    device: Union[str, int] = "auto",
    threads: Optional[int] = None,
    model_args: Optional[Mapping[str, Any]] = None,
    **job: Any,
) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """A function for DataFrame.mapInPandas, with the schema that generate_schema makes. Arguments are
    those of bdh_gpu.batch.Generator.
    """
    return _Pandas(Generation.of(**job), Source.of(model, device, threads, model_args))


def generate_arrow(
    model: Any = None,
    *,
    device: Union[str, int] = "auto",
    threads: Optional[int] = None,
    model_args: Optional[Mapping[str, Any]] = None,
    **job: Any,
) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """As generate_pandas, for DataFrame.mapInArrow."""
    return _Arrow(Generation.of(**job), Source.of(model, device, threads, model_args))


def score_pandas(
    model: Any = None,
    *,
    device: Union[str, int] = "auto",
    threads: Optional[int] = None,
    model_args: Optional[Mapping[str, Any]] = None,
    **job: Any,
) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """A function for DataFrame.mapInPandas, with the schema that score_schema makes. Arguments are
    those of bdh_gpu.batch.Scorer.
    """
    return _Pandas(Scoring.of(**job), Source.of(model, device, threads, model_args))


def score_arrow(
    model: Any = None,
    *,
    device: Union[str, int] = "auto",
    threads: Optional[int] = None,
    model_args: Optional[Mapping[str, Any]] = None,
    **job: Any,
) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """As score_pandas, for DataFrame.mapInArrow."""
    return _Arrow(Scoring.of(**job), Source.of(model, device, threads, model_args))


def generate_schema(schema: Any, output_prefix: str = "") -> Any:
    """The schema of generated rows: a DataFrame's schema with the new columns behind its own."""
    return _schema(schema, Generation, output_prefix)


def score_schema(schema: Any, output_prefix: str = "") -> Any:
    """The schema of scored rows: a DataFrame's schema with the new columns behind its own."""
    return _schema(schema, Scoring, output_prefix)


def _schema(schema: Any, job: Any, prefix: str) -> Any:
    from pyspark.sql.types import BooleanType, DecimalType, DoubleType, LongType, StringType, StructType

    types = {
        "int64": LongType(),
        "uint64": DecimalType(20, 0),
        "float64": DoubleType(),
        "string": StringType(),
        "bool": BooleanType(),
    }
    new = StructType(list(schema.fields))
    for name, kind in job.WRITES.items():
        new = new.add(prefix + name, types[kind])
    return new


def generate(dataframe: Any, model: Any = None, **arguments: Any) -> Any:
    """A DataFrame with texts for the prompts of another. Arguments are those of generate_arrow."""
    return _mapped(dataframe, generate_arrow(model, **arguments))


def score(dataframe: Any, model: Any = None, **arguments: Any) -> Any:
    """A DataFrame with scores for the texts of another. Arguments are those of score_arrow."""
    return _mapped(dataframe, score_arrow(model, **arguments))


def _mapped(dataframe: Any, function: _Arrow) -> Any:
    check_columns(function.job, dataframe.columns)
    return dataframe.mapInArrow(function, _schema(dataframe.schema, function.job, function.job.prefix))
