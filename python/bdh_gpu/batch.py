"""Texts and scores for many rows, in one process. bdh_gpu.ray and bdh_gpu.spark do the same on
clusters, and a row's texts are the same there.

    from bdh_gpu import batch

    rows = [{"id": 1, "prompt": "KING:\\n"}, {"id": 2, "prompt": "QUEEN:\\n"}]
    for row in batch.generate(rows, max_new_tokens=20, seed=1):
        print(row["id"], row["text"])

A row's random numbers depend on the job's seed and the row's id alone: not on its batch, the rows
beside it, their order, or what ran before. A new row has the old one's entries, and:

    index           number among the row's texts, from 0
    text            the new text, without the prompt; None if the row failed
    finish_reason   "length", "eos" or "stop"
    seed            the seed that gives this text alone (BDH.complete); None for beam search
    prompt_tokens   tokens of the prompt
    new_tokens      tokens of the text
    error           why there is no text; None if there is one

Scores have logprob (natural logarithm, the sum over the tokens), scored_tokens, bits_per_byte, greedy
(whether greedy decoding writes this text) and error.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Optional, Union

from . import _native
from ._place import Source
from ._rows import Generation, RowError, Scoring, Worker, content_id, row_seed

__all__ = ["Generator", "RowError", "Scorer", "content_id", "generate", "row_seed", "score"]


class _Local:
    """A job on a model in this process."""

    _worker: Worker

    @property
    def model(self) -> _native.BDH:
        """The model."""
        return self._worker.model

    def rows(self, rows: Iterable[Mapping[str, Any]], batch_size: int = 256) -> Iterator[dict[str, Any]]:
        """New rows for dicts, in their order; batch_size of them are worked on together."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        return self._worker.rows(rows, batch_size)

    def table(self, table: Any) -> Any:
        """A pyarrow.Table with the new columns behind those that it has."""
        return self._worker.table(table)

    def frame(self, frame: Any) -> Any:
        """A pandas.DataFrame with the new columns behind those that it has."""
        return self._worker.frame(frame)


class Generator(_Local):
    """Texts for prompts.

    model: a directory, a weights file, or a name on the Hugging Face Hub; None is the embedded
    model. device, threads: as for BDH.from_pretrained, and model_args its other arguments: weights,
    state_dtype, tokenizer, rope, dtype.

    prompt_column, id_column: columns that are read; ids are ints or strs. seed: the job's.
    num_return_sequences: texts for each prompt. max_prompt_tokens: longer prompts fail. on_error:
    "row" gives a row that fails the column error, "raise" ends the job with a RowError. A device that
    fails ends it in any case, after one more try. output_prefix: what the new columns' names begin
    with. options: those of BDH.complete, max_new_tokens for instance.
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
        self._worker = Worker(Generation.of(**job), Source.of(model, device, threads, model_args))


class Scorer(_Local):
    """How likely texts are. model, device, threads and model_args as for Generator.

    text_column: the texts, by themselves (their first token is not scored) or, with prompt_column,
    as continuations of their prompts. max_tokens: longer texts fail. on_error, output_prefix: as for
    Generator. options: context, forget_tau and window, as for BDH.score.
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
        self._worker = Worker(Scoring.of(**job), Source.of(model, device, threads, model_args))


def generate(
    rows: Iterable[Mapping[str, Any]], model: Any = None, *, batch_size: int = 256, **arguments: Any
) -> Iterator[dict[str, Any]]:
    """New rows with texts for the prompts of dicts. Arguments are those of Generator."""
    return Generator(model, **arguments).rows(rows, batch_size)


def score(
    rows: Iterable[Mapping[str, Any]], model: Any = None, *, batch_size: int = 256, **arguments: Any
) -> Iterator[dict[str, Any]]:
    """New rows with scores for the texts of dicts. Arguments are those of Scorer."""
    return Scorer(model, **arguments).rows(rows, batch_size)
