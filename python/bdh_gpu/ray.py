"""Texts and scores for the rows of a Ray Dataset, with one model per actor.

    import ray
    import bdh_gpu.ray

    prompts = ray.data.read_parquet("prompts/")     # columns id and prompt
    texts = bdh_gpu.ray.generate(prompts, "path/to/a/model", max_new_tokens=200, seed=1, concurrency=4)
    texts.write_parquet("texts/")

The columns are those of bdh_gpu.batch. A row's texts depend on the seed, its id and its prompt, so
blocks that Ray computes again, after an actor or a node has died, have the same rows as before, and
so has a run with another number of actors.
"""

from collections.abc import Mapping
from typing import Any, Optional, Union

import ray
from ray.data import ActorPoolStrategy, Dataset

from ._place import Source
from ._rows import Generation, Scoring, Worker, check_columns, content_id

__all__ = ["Generator", "Scorer", "add_ids", "generate", "score"]

# Rows that are worked on together, and lost together with an actor. The end of a batch leaves slots
# idle, and a small batch has more of an end.
_BATCH_SIZE = 128


class _Actor:
    """A job on a model in an actor of Ray's."""

    _worker: Worker

    def __call__(self, batch: Any) -> Any:
        """New rows for those of a pyarrow.Table."""
        return self._worker.table(batch)


def _worker(job: Any, source: Source) -> Worker:
    """The job on the processors and graphics cards that Ray has given to this actor."""
    context = ray.get_runtime_context()
    gpus = context.get_accelerator_ids().get("GPU", [])
    # An actor without processors of its own has to do with one thread.
    return Worker(job, source, context.get_assigned_resources().get("CPU", 0), gpus)


class Generator(_Actor):
    """Texts for prompts, for map_batches(Generator, batch_format="pyarrow", …); generate does that.
    Arguments are those of bdh_gpu.batch.Generator. device="auto" is the graphics card that Ray has
    assigned to the actor (num_gpus), or else the CPU with as many threads as num_cpus says.
    """

    def __init__(
        self,
        model: Any = None,
        *,
        device: Union[str, int] = "auto",
        threads: Optional[int] = None,
        model_args: Optional[Mapping[str, Any]] = None,
        **job: Any,
    ) -> None:
        self._worker = _worker(Generation.of(**job), Source.of(model, device, threads, model_args))


class Scorer(_Actor):
    """How likely texts are, for map_batches; score does that. Arguments are those of
    bdh_gpu.batch.Scorer, and the device is chosen as for Generator.
    """

    def __init__(
        self,
        model: Any = None,
        *,
        device: Union[str, int] = "auto",
        threads: Optional[int] = None,
        model_args: Optional[Mapping[str, Any]] = None,
        **job: Any,
    ) -> None:
        self._worker = _worker(Scoring.of(**job), Source.of(model, device, threads, model_args))


def generate(
    dataset: Dataset,
    model: Any = None,
    *,
    concurrency: Union[int, tuple[int, int]] = 1,
    num_cpus: Optional[float] = None,
    num_gpus: Optional[float] = None,
    batch_size: int = _BATCH_SIZE,
    device: Union[str, int] = "auto",
    threads: Optional[int] = None,
    model_args: Optional[Mapping[str, Any]] = None,
    ray_remote_args: Optional[Mapping[str, Any]] = None,
    **job: Any,
) -> Dataset:
    """A dataset with texts for the prompts of another. concurrency: actors, each with a model of its
    own; (least, most) for a pool that grows. num_cpus, num_gpus: of each actor; a part of a graphics
    card, 0.5 for instance, lets actors share it. ray_remote_args: further arguments of Ray's remote.
    The others are those of bdh_gpu.batch.Generator.
    """
    checked = Generation.of(**job)
    Source.of(model, device, threads, model_args)
    constructor = dict(model=model, device=device, threads=threads, model_args=model_args, **job)
    return _map(
        dataset, checked, Generator, constructor, concurrency, num_cpus, num_gpus, batch_size, ray_remote_args
    )


def score(
    dataset: Dataset,
    model: Any = None,
    *,
    concurrency: Union[int, tuple[int, int]] = 1,
    num_cpus: Optional[float] = None,
    num_gpus: Optional[float] = None,
    batch_size: int = _BATCH_SIZE,
    device: Union[str, int] = "auto",
    threads: Optional[int] = None,
    model_args: Optional[Mapping[str, Any]] = None,
    ray_remote_args: Optional[Mapping[str, Any]] = None,
    **job: Any,
) -> Dataset:
    """A dataset with scores for the texts of another. Arguments are those of bdh_gpu.batch.Scorer and,
    for the actors, those of generate.
    """
    checked = Scoring.of(**job)
    Source.of(model, device, threads, model_args)
    constructor = dict(model=model, device=device, threads=threads, model_args=model_args, **job)
    return _map(dataset, checked, Scorer, constructor, concurrency, num_cpus, num_gpus, batch_size, ray_remote_args)


def add_ids(dataset: Dataset, columns: Any = ("prompt",), id_column: str = "id") -> Dataset:
    """A dataset with ids made of the content of some columns (bdh_gpu.batch.content_id): rows that are
    equal there get equal texts. read_parquet(…, include_row_hash=True) is another way to ids: its
    column row_hash stands for the file and the row's place in it.
    """
    names = [columns] if isinstance(columns, str) else list(columns)

    def with_ids(table: Any) -> Any:
        import pyarrow

        for name in names:
            if name not in table.column_names:
                raise ValueError(f"the rows have no column {name!r} (they have: {', '.join(table.column_names)})")
        if id_column in table.column_names:
            raise ValueError(f"the rows have a column {id_column!r} already; give another id_column")
        values = zip(*(table.column(name).to_pylist() for name in names))
        ids = pyarrow.array([content_id(*row) for row in values], pyarrow.string())
        return table.append_column(id_column, ids)

    return dataset.map_batches(with_ids, batch_format="pyarrow", zero_copy_batch=True)


def _map(
    dataset: Dataset,
    job: Any,
    actor: type,
    constructor: dict,
    concurrency: Union[int, tuple[int, int]],
    num_cpus: Optional[float],
    num_gpus: Optional[float],
    batch_size: int,
    ray_remote_args: Optional[Mapping[str, Any]],
) -> Dataset:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    # Not all datasets know their columns before they are read.
    names = dataset.columns(fetch_if_missing=False)
    if names is not None:
        check_columns(job, names)
    if isinstance(concurrency, tuple):
        pool = ActorPoolStrategy(min_size=concurrency[0], max_size=concurrency[1])
    else:
        pool = ActorPoolStrategy(size=concurrency)
    return dataset.map_batches(
        actor,
        batch_size=batch_size,
        batch_format="pyarrow",
        zero_copy_batch=True,
        compute=pool,
        fn_constructor_kwargs=constructor,
        num_cpus=1 if num_cpus is None and not num_gpus else num_cpus,
        num_gpus=num_gpus,
        **dict(ray_remote_args or {}),
    )
