"""Rows in, rows out: what one process, Ray and Spark have in common.

A job reads some columns of a batch and writes new ones. `Worker` puts it on a model and takes
batches as Arrow tables, pandas frames or dicts.
"""

import hashlib
import itertools
import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from . import _native
from ._place import Source

# Arguments of BDH.complete that are no options of the sampler.
_OTHER_OPTIONS = {"max_new_tokens", "num_return_sequences", "context", "forget_tau", "window"}


class RowError(ValueError):
    """A row that nothing can be made of, with on_error="raise"."""


class _Refused(Exception):
    """Why a row has no result."""


def row_seed(seed: int, row_id: Any) -> int:
    """The seed of a row: 64 bits of BLAKE2b of the job's seed and the row's id, an int or a str.
    BDH.complete([prompt], seed=row_seed(seed, row_id)) repeats the row's texts. 1 and "1" are
    different ids.
    """
    try:
        start = operator.index(seed).to_bytes(8, "little")
    except (TypeError, OverflowError) as error:
        raise ValueError(f"seed must be a whole number from 0 to {2**64 - 1}, got {seed!r}") from error
    try:
        name = _id_bytes(row_id)
    except _Refused as error:
        raise ValueError(str(error)) from None
    # The key tells these numbers from other uses of the same hash.
    return int.from_bytes(hashlib.blake2b(start + name, digest_size=8, key=b"bdh-gpu row").digest(), "little")


def content_id(*values: Any) -> str:
    """An id made of a row's content, for rows that have none: 128 bits of a hash in hexadecimal.
    Values are str, bytes, int, float, bool or None. Rows with equal values get equal texts.
    """
    digest = hashlib.blake2b(digest_size=16, key=b"bdh-gpu content")
    for value in values:
        if value is None or isinstance(value, (bool, int, float)):
            data = repr(value).encode()
        elif isinstance(value, str):
            # As Parquet files may hold them: bytes that are no text, and halves of characters.
            data = value.encode("utf-8", "surrogatepass")
        elif isinstance(value, (bytes, bytearray, memoryview)):
            data = bytes(value)
        else:
            raise TypeError(
                f"a content id is made of str, bytes, int, float, bool and None, not {type(value).__name__}"
            )
        kind = "bool" if isinstance(value, bool) else type(value).__name__
        digest.update(f"{kind}:{len(data)}:".encode() + data)
    return digest.hexdigest()


def _id_bytes(row_id: Any) -> bytes:
    if isinstance(row_id, str):
        try:
            return b"s" + row_id.encode()
        except UnicodeEncodeError:
            raise _Refused(f"the id {row_id!r} is not valid Unicode") from None
    if row_id is None or row_id != row_id:
        raise _Refused("the id is null; the row's random numbers come from it")
    try:
        if isinstance(row_id, bool):
            raise TypeError
        return b"i" + str(operator.index(row_id)).encode()
    except TypeError:
        hint = "; pandas makes floats of whole numbers beside nulls" if isinstance(row_id, float) else ""
        raise _Refused(f"the id must be int or str, not {type(row_id).__name__}{hint}") from None


def _text(value: Any, what: str) -> str:
    """A column's value as a text."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError as error:
            raise _Refused(f"the {what} is not valid UTF-8: {error.reason} at byte {error.start}") from None
    # NaN is how pandas writes null.
    if value is None or (isinstance(value, float) and value != value):
        raise _Refused(f"the {what} is null")
    if not isinstance(value, str):
        raise _Refused(f"the {what} must be a text, not {type(value).__name__}")
    return value


def _encode(model: _native.BDH, text: str, what: str) -> list[int]:
    try:
        return model.encode(text)
    except UnicodeEncodeError as error:
        raise _Refused(f"the {what} is not valid Unicode: {error.reason} at {error.start}") from None
    except ValueError as error:
        raise _Refused(str(error)) from None


def _check_length(tokens: list[int], largest: Optional[int], what: str) -> None:
    if largest is not None and len(tokens) > largest:
        raise _Refused(f"the {what} has {len(tokens)} tokens, more than the {largest} that are allowed")


def _check_choice(on_error: str) -> None:
    if on_error not in ("row", "raise"):
        raise ValueError(f'on_error must be "row" or "raise", got {on_error!r}')


@dataclass(frozen=True)
class Generation:
    """Texts for the prompts of rows. Checked when made, so that a mistake does not travel to a
    cluster first.
    """

    prompt_column: str
    id_column: str
    seed: int
    num_return_sequences: int
    max_prompt_tokens: Optional[int]
    on_error: str
    prefix: str
    options: tuple[tuple[str, Any], ...]

    #: Columns that are added, with their types.
    WRITES = {
        "index": "int64",
        "text": "string",
        "finish_reason": "string",
        "seed": "uint64",
        "prompt_tokens": "int64",
        "new_tokens": "int64",
        "error": "string",
    }

    @classmethod
    def of(
        cls,
        prompt_column: str = "prompt",
        id_column: str = "id",
        seed: int = 0,
        num_return_sequences: int = 1,
        max_prompt_tokens: Optional[int] = None,
        on_error: str = "row",
        output_prefix: str = "",
        **options: Any,
    ) -> "Generation":
        row_seed(seed, "")
        _check_choice(on_error)
        known = {name for name, _ in _native._keywords} | _OTHER_OPTIONS
        for name in options:
            if name not in known:
                raise TypeError(f"there is no generation option {name!r}; help(bdh_gpu.BDH) lists them")
        if num_return_sequences < 1:
            raise ValueError(f"num_return_sequences must be at least 1, got {num_return_sequences}")
        return cls(
            prompt_column,
            id_column,
            operator.index(seed),
            num_return_sequences,
            max_prompt_tokens,
            on_error,
            output_prefix,
            tuple(sorted(options.items())),
        )

    @property
    def reads(self) -> list[str]:
        return [self.id_column, self.prompt_column]

    @property
    def absence(self) -> str:
        """Why a column is needed, for an error."""
        return (
            "a row's random numbers come from the job's seed and the row's id, so that it gets the "
            "same text in any batch and when work is retried; numbers counted per batch would not do "
            "that. Name the column of ids as id_column; rows without any get them from "
            "bdh_gpu.batch.content_id"
        )

    def check(self, model: _native.BDH) -> None:
        """Raises what is wrong with every row: options out of range, a model without a tokenizer."""
        model._complete([], **dict(self.options))

    def run(
        self, model: _native.BDH, ids: Sequence[Any], prompts: Sequence[Any]
    ) -> tuple[list[int], list[tuple]]:
        """For each new row the number of the row that it belongs to, and its values by WRITES."""
        tokens: list[list[int]] = []
        seeds: list[int] = []
        numbers: list[int] = []
        errors: dict[int, str] = {}
        for number, (row_id, prompt) in enumerate(zip(ids, prompts)):
            try:
                _id_bytes(row_id)
                encoded = _encode(model, _text(prompt, "prompt"), "prompt")
                _check_length(encoded, self.max_prompt_tokens, "prompt")
                if not encoded:
                    _start(model)
            except _Refused as error:
                errors[number] = self.refused(row_id, str(error))
                continue
            numbers.append(number)
            tokens.append(encoded)
            seeds.append(row_seed(self.seed, row_id))
        options = dict(self.options, num_return_sequences=self.num_return_sequences)
        written: list[tuple[int, tuple]] = [
            (number, (0, None, None, None, 0, 0, error)) for number, error in errors.items()
        ]
        for place, index, text, new, reason, seed, _, failure in model._complete(tokens, seeds=seeds, **options):
            number, read = numbers[place], len(tokens[place])
            if failure is None:
                written.append((number, (index, text, reason, seed, read, new, None)))
            else:
                failure = self.refused(ids[number], failure)
                written.append((number, (index, None, None, None, read, 0, failure)))
        written.sort(key=lambda row: (row[0], row[1][0]))
        return [number for number, _ in written], [values for _, values in written]

    def refused(self, row_id: Any, why: str) -> str:
        if self.on_error == "raise":
            raise RowError(f"the row with the {self.id_column} {row_id!r}: {why}")
        return why


def _start(model: _native.BDH) -> None:
    """Refuses an empty prompt where a model names no token to start from."""
    try:
        model._default_prompt()
    except ValueError as error:
        raise _Refused(str(error)) from None


@dataclass(frozen=True)
class Scoring:
    """How likely the texts of rows are. Checked when made."""

    text_column: str
    prompt_column: Optional[str]
    max_tokens: Optional[int]
    on_error: str
    prefix: str
    options: tuple[tuple[str, Any], ...]

    #: Columns that are added, with their types.
    WRITES = {
        "logprob": "float64",
        "scored_tokens": "int64",
        "bits_per_byte": "float64",
        "greedy": "bool",
        "error": "string",
    }

    @classmethod
    def of(
        cls,
        text_column: str = "text",
        prompt_column: Optional[str] = None,
        max_tokens: Optional[int] = None,
        on_error: str = "row",
        output_prefix: str = "",
        **options: Any,
    ) -> "Scoring":
        _check_choice(on_error)
        for name in options:
            if name not in ("context", "forget_tau", "window"):
                raise TypeError(f"there is no option {name!r} of scores; expected context, forget_tau or window")
        return cls(text_column, prompt_column, max_tokens, on_error, output_prefix, tuple(sorted(options.items())))

    @property
    def reads(self) -> list[str]:
        return [self.text_column] if self.prompt_column is None else [self.text_column, self.prompt_column]

    @property
    def absence(self) -> str:
        return "name the column of texts as text_column, and that of their prompts, if any, as prompt_column"

    def check(self, model: _native.BDH) -> None:
        """Raises what is wrong with every row: options out of range, a model without a tokenizer."""
        model.session(**dict(self.options))
        model.decode([])

    def run(
        self, model: _native.BDH, texts: Sequence[Any], prompts: Optional[Sequence[Any]] = None
    ) -> tuple[list[int], list[tuple]]:
        """For each new row the number of the row that it belongs to, and its values by WRITES."""
        written = []
        for number, text in enumerate(texts):
            try:
                if self.prompt_column is None:
                    values = self.score(model, text)
                else:
                    assert prompts is not None
                    values = self.score_after(model, prompts[number], text)
            except _Refused as error:
                if self.on_error == "raise":
                    raise RowError(f"the row number {number} of its batch, counted from 0: {error}") from None
                values = (None, 0, None, None, str(error))
            written.append(values)
        return list(range(len(written))), written

    def score(self, model: _native.BDH, text: Any) -> tuple:
        """A text by itself, without its first token, which nothing predicts."""
        text = _text(text, "text")
        tokens = _encode(model, text, "text")
        first = len(model.decode(tokens[:1]).encode())
        return self.values(model, tokens, 1, len(text.encode()) - first)

    def score_after(self, model: _native.BDH, prompt: Any, text: Any) -> tuple:
        """A text as a prompt's continuation: both are one text for the tokenizer, and the tokens
        beyond the prompt's number are scored. An empty prompt is what the model starts from.
        """
        prompt, text = _text(prompt, "prompt"), _text(text, "text")
        tokens = _encode(model, prompt + text, "text")
        before = len(_encode(model, prompt, "prompt"))
        if before == 0:
            _start(model)
            start = model._default_prompt()
            tokens, before = start + tokens, len(start)
        return self.values(model, tokens, before, len(text.encode()))

    def values(self, model: _native.BDH, tokens: list[int], before: int, size: int) -> tuple:
        """The values for the tokens after the first `before`, whose text takes `size` bytes."""
        _check_length(tokens, self.max_tokens, "text")
        if len(tokens) <= before:
            raise _Refused("there is nothing to score: the text has no token that others predict")
        try:
            found = model.score(tokens, **dict(self.options))
        except ValueError as error:
            raise _Refused(str(error)) from None
        scored = len(tokens) - before
        # None where a token is no byte.
        size = size if found.bits_per_byte is None else scored
        total = math.fsum(p for p in found.logprobs[before:] if p is not None)
        bits = -total / math.log(2) / size if size > 0 else None
        return (total, scored, bits, all(found.greedy[before:]), None)


class Worker:
    """A job on a model that this process has loaded. Keeps nothing from one batch to the next, so a
    batch has the same results wherever and whenever it is worked on.
    """

    def __init__(
        self,
        job: Any,
        source: Source,
        cpus: Optional[float] = None,
        gpus: Optional[Sequence[str]] = None,
    ) -> None:
        self.job = job
        self._load = lambda: source.load(cpus, gpus)
        self._model: Optional[_native.BDH] = self._load()
        job.check(self._model)

    @property
    def model(self) -> _native.BDH:
        """The model."""
        if self._model is None:
            self._model = self._load()
        return self._model

    def run(self, *columns: Sequence[Any]) -> tuple[list[int], list[tuple]]:
        """The job on the columns that it reads. If the device fails, the model is loaded again and
        the batch repeated, once: it may be lost to this process, or another of it may have failed.
        """
        try:
            return self.job.run(self.model, *columns)
        except _native.BDHError:
            self._model = None
        try:
            return self.job.run(self.model, *columns)
        except _native.BDHError:
            # The next batch is not to find a device that has failed.
            self._model = None
            raise

    def table(self, table: Any) -> Any:
        """A pyarrow.Table with the new columns behind those that it has."""
        import pyarrow

        check_columns(self.job, table.column_names)
        numbers, rows = self.run(*(_column(table.column(name)) for name in self.job.reads))
        result = table.take(pyarrow.array(numbers, pyarrow.int64()))
        for (name, kind), values in zip(self.job.WRITES.items(), _transposed(rows, self.job)):
            array = pyarrow.array(values, type=getattr(pyarrow, _ARROW[kind])())
            result = result.append_column(self.job.prefix + name, array)
        return result

    def frame(self, frame: Any) -> Any:
        """A pandas.DataFrame with the new columns behind those that it has."""
        import pandas

        check_columns(self.job, list(frame.columns))
        numbers, rows = self.run(*(list(frame[name]) for name in self.job.reads))
        result = frame.iloc[numbers].reset_index(drop=True)
        for (name, kind), values in zip(self.job.WRITES.items(), _transposed(rows, self.job)):
            result[self.job.prefix + name] = pandas.Series(values, dtype=_PANDAS[kind])
        return result

    def dicts(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Dicts with the new entries behind those that they have."""
        for row in rows:
            check_columns(self.job, list(row))
        numbers, written = self.run(*([row[name] for row in rows] for name in self.job.reads))
        names = [self.job.prefix + name for name in self.job.WRITES]
        return [{**rows[number], **dict(zip(names, values))} for number, values in zip(numbers, written)]

    def rows(self, rows: Iterable[Mapping[str, Any]], batch_size: int) -> Iterator[dict[str, Any]]:
        """As dicts, for any number of rows, so many at a time."""
        waiting = iter(rows)
        while batch := list(itertools.islice(waiting, batch_size)):
            yield from self.dicts(batch)


_ARROW = {"int64": "int64", "uint64": "uint64", "float64": "float64", "string": "string", "bool": "bool_"}
_PANDAS = {"int64": "int64", "uint64": "UInt64", "float64": "float64", "string": "object", "bool": "boolean"}


def check_columns(job: Any, names: Sequence[str]) -> None:
    """Refuses rows that lack a column that is read, or have one that is written."""
    for name in job.reads:
        if name not in names:
            there = ", ".join(map(str, names)) or "none"
            raise ValueError(f"the rows have no column {name!r} (they have: {there}): {job.absence}")
    for name in job.WRITES:
        if job.prefix + name in names:
            raise ValueError(
                f"the rows have a column {job.prefix + name!r} already, which is to be written; "
                "rename it, or give output_prefix, which the new columns' names begin with"
            )


def _transposed(rows: list[tuple], job: Any) -> list[list]:
    return [list(column) for column in zip(*rows)] if rows else [[] for _ in job.WRITES]


def _column(column: Any) -> list:
    """The values of an Arrow column. A text that is not UTF-8 comes as bytes, and fails by itself."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return [_value(scalar) for scalar in column]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        # That of a dictionary's entry, for a column in dictionary encoding.
        return getattr(scalar, "value", scalar).as_buffer().to_pybytes()
