from collections.abc import Iterable, Iterator
from os import PathLike
from typing import Any, Literal, Optional, TypedDict, Union, final

from typing_extensions import Unpack

import numpy as np
import numpy.typing as npt

__version__: str

class _Drawing(TypedDict, total=False):
    min_new_tokens: Optional[int]
    stop: Union[str, Iterable[str], None]
    eos_token_id: Union[int, Iterable[int], None]
    ignore_eos: Optional[bool]
    do_sample: Optional[bool]
    greedy: Optional[bool]
    temperature: Optional[float]
    top_k: Optional[int]
    top_p: Optional[float]
    min_p: Optional[float]
    repetition_penalty: Optional[float]
    presence_penalty: Optional[float]
    frequency_penalty: Optional[float]
    seed: Optional[int]
    num_beams: Optional[int]
    length_penalty: Optional[float]
    early_stopping: Union[bool, Literal["never"], None]

class _Context(TypedDict, total=False):
    context: Union[int, Literal["full"], None]
    forget_tau: Optional[float]

class _One(_Drawing, _Context, total=False):
    echo: Optional[bool]

class _Complete(_Drawing, _Context, total=False):
    num_return_sequences: Optional[int]

class _Many(_One, _Complete, total=False): ...

class BDHError(Exception): ...

@final
class BDH:
    @classmethod
    def from_pretrained(
        cls,
        path: Union[str, PathLike[str]],
        device: Union[str, int] = "auto",
        weights: Literal["auto", "f32", "f16"] = "auto",
        tokenizer: Union[str, PathLike[str], None] = None,
        rope: Optional[str] = None,
        threads: Optional[int] = None,
    ) -> BDH: ...
    @classmethod
    def embedded(
        cls,
        device: Union[str, int] = "auto",
        weights: Literal["auto", "f32", "f16"] = "auto",
        threads: Optional[int] = None,
    ) -> BDH: ...
    def generate_text(
        self, prompt: str, max_new_tokens: Optional[int] = None, **options: Unpack[_One]
    ) -> str: ...
    def generate(
        self, tokens: Iterable[int], max_new_tokens: Optional[int] = None, **options: Unpack[_One]
    ) -> list[int]: ...
    def generate_batch(
        self, prompts: Iterable[str], max_new_tokens: Optional[int] = None, **options: Unpack[_Many]
    ) -> list[str]: ...
    def complete(
        self, prompts: Iterable[str], max_new_tokens: Optional[int] = None, **options: Unpack[_Complete]
    ) -> list[Completion]: ...
    def generate_stream(
        self, prompt: str, max_new_tokens: Optional[int] = None, **options: Unpack[_One]
    ) -> TextStream: ...
    def logits(
        self, tokens: Union[str, Iterable[int]], **options: Unpack[_Context]
    ) -> npt.NDArray[np.float32]: ...
    def score(
        self, tokens: Union[str, Iterable[int]], **options: Unpack[_Context]
    ) -> Score: ...
    def session(self, **options: Unpack[_Context]) -> Session: ...
    def load_session(self, path: Union[str, PathLike[str]]) -> Session: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, tokens: Iterable[int]) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def weights(self) -> str: ...
    @property
    def notes(self) -> list[str]: ...
    @property
    def config(self) -> dict[str, Any]: ...

@final
class TextStream(Iterator[str]):
    def __iter__(self) -> TextStream: ...
    def __next__(self) -> str: ...
    def close(self) -> None: ...

@final
class Completion:
    def __new__(
        cls,
        prompt: str,
        index: int,
        text: str,
        tokens: list[int],
        finish_reason: str,
        seed: Optional[int] = None,
        score: Optional[float] = None,
    ) -> Completion: ...
    @property
    def prompt(self) -> str: ...
    @property
    def index(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def tokens(self) -> list[int]: ...
    @property
    def finish_reason(self) -> Literal["length", "eos", "stop"]: ...
    @property
    def seed(self) -> Optional[int]: ...
    @property
    def score(self) -> Optional[float]: ...

@final
class Score:
    def __new__(
        cls,
        tokens: list[int],
        logprobs: list[Optional[float]],
        total: float,
        mean_loss: float,
        perplexity: float,
        bits_per_byte: Optional[float],
    ) -> Score: ...
    @property
    def tokens(self) -> list[int]: ...
    @property
    def logprobs(self) -> list[Optional[float]]: ...
    @property
    def total(self) -> float: ...
    @property
    def mean_loss(self) -> float: ...
    @property
    def perplexity(self) -> float: ...
    @property
    def bits_per_byte(self) -> Optional[float]: ...

@final
class Session:
    @property
    def device(self) -> str: ...
    @property
    def position(self) -> int: ...
    @property
    def seed(self) -> Optional[int]: ...
    def feed(self, prompt: Union[str, Iterable[int]]) -> None: ...
    def generate(
        self, max_new_tokens: Optional[int] = None, **options: Unpack[_Drawing]
    ) -> list[int]: ...
    def generate_text(
        self, max_new_tokens: Optional[int] = None, **options: Unpack[_Drawing]
    ) -> str: ...
    def generate_stream(
        self, max_new_tokens: Optional[int] = None, **options: Unpack[_Drawing]
    ) -> TextStream: ...
    def fork(self) -> Session: ...
    def snapshot(self) -> Snapshot: ...
    def restore(self, snapshot: Snapshot) -> None: ...
    def reset(self) -> None: ...
    def save(self, path: Union[str, PathLike[str]]) -> None: ...

@final
class Snapshot:
    @property
    def position(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    def save(self, path: Union[str, PathLike[str]]) -> None: ...
