from collections.abc import Iterable, Iterator, Mapping
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
    temperature: Optional[float]
    top_k: Optional[int]
    top_p: Optional[float]
    min_p: Optional[float]
    repetition_penalty: Optional[float]
    presence_penalty: Optional[float]
    frequency_penalty: Optional[float]
    do_sample: Optional[bool]
    greedy: Optional[bool]
    logit_bias: Optional[Mapping[int, float]]
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
    """A model on a device, ready to generate.

    Options of the generating methods; what is not given, or None, is the model's own:
    max_new_tokens, min_new_tokens, stop (a text or several), eos_token_id (an id or several),
    ignore_eos; temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty,
    frequency_penalty, do_sample, greedy, logit_bias, seed; num_beams, length_penalty,
    early_stopping (True, False or "never"); context (a number of tokens, or "full"), forget_tau;
    echo: False leaves the prompt out of the result.

    Raises ValueError for an option out of its range and BDHError where the device fails. Other
    threads run while the device works; Ctrl-C interrupts.
    """
    @classmethod
    def from_pretrained(
        cls,
        path: Union[str, PathLike[str]],
        device: Union[str, int] = "auto",
        weights: Literal["auto", "f32", "f16", "int8"] = "auto",
        tokenizer: Union[str, PathLike[str], None] = None,
        rope: Optional[str] = None,
        threads: Optional[int] = None,
        dtype: Any = None,
        state_dtype: Any = "float32",
    ) -> BDH:
        """Loads a model directory, a weights file, or a model of the Hugging Face Hub by its name,
        "owner/name[@revision][:file]", which is downloaded into the Hub's cache. device: "auto"
        (the best graphics card, else the CPU), "gpu", "cpu", an index, or a part of an adapter's
        name. weights: "auto" (f16 where that changes none), "f32", "f16", "int8". state_dtype: of
        the sequences' states, "float32" (exact), "int16", "int8". threads: of the CPU, by default
        one per processor. tokenizer: a tokenizer.json or its folder, in place of the one beside the
        model. rope: the kind of rotary embedding, "interleaved:65536" or "half-split:10000", for
        checkpoints that do not say it. dtype: another name for weights, as other packages have it:
        "float16", "float32", "int8", torch.float16, numpy.float32, …
        """
    @classmethod
    def embedded(
        cls,
        device: Union[str, int] = "auto",
        weights: Literal["auto", "f32", "f16", "int8"] = "auto",
        threads: Optional[int] = None,
        state_dtype: Any = "float32",
    ) -> BDH:
        """The small model that comes with the package, on a device as for from_pretrained."""
    def generate_text(
        self, prompt: str, max_new_tokens: Optional[int] = None, **options: Unpack[_One]
    ) -> str:
        """Continues a text; the result begins with it."""
    def generate(
        self, tokens: Iterable[int], max_new_tokens: Optional[int] = None, **options: Unpack[_One]
    ) -> list[int]:
        """Continues token ids; the result begins with them."""
    def generate_batch(
        self, prompts: Iterable[str], max_new_tokens: Optional[int] = None, **options: Unpack[_Many]
    ) -> list[str]:
        """Continues several texts side by side; results are in their order. num_return_sequences: how
        many for each.
        """
    def complete(
        self, prompts: Iterable[str], max_new_tokens: Optional[int] = None, **options: Unpack[_Complete]
    ) -> list[Completion]:
        """As generate_batch, but returns a Completion for each text: the new text and its tokens,
        without the prompt, the seed, the score and why it ended.
        """
    def generate_stream(
        self, prompt: str, max_new_tokens: Optional[int] = None, **options: Unpack[_One]
    ) -> TextStream:
        """Continues a text and hands it out as it comes, the prompt first; joined, the pieces are what
        generate_text returns. The device works on while a piece is dealt with. Beam search has one
        piece, at its end.
        """
    def logits(
        self, tokens: Union[str, Iterable[int]], **options: Unpack[_Context]
    ) -> npt.NDArray[np.float32]:
        """The logits after each token, a NumPy array [T, V] of float32. Takes a text or token ids;
        context and forget_tau as for generating.
        """
    def score(
        self, tokens: Union[str, Iterable[int]], **options: Unpack[_Context]
    ) -> Score:
        """How likely the model finds a text or token ids, at least two; context and forget_tau as for
        generating.
        """
    def session(self, **options: Unpack[_Context]) -> Session:
        """Starts a conversation; context and forget_tau as for generating."""
    def load_session(self, path: Union[str, PathLike[str]]) -> Session:
        """Goes on with a conversation from a state file, as Session.save and bdh-gpu --save-state
        write it.
        """
    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
    def decode(self, tokens: Iterable[int]) -> str:
        """The text of token ids."""
    @property
    def name(self) -> str:
        """The model's name."""
    @property
    def device(self) -> str:
        """The device that runs it."""
    @property
    def state_dtype(self) -> str:
        """How the device holds the sequences' states: "f32", "i16" or "i8"."""
    @property
    def weights(self) -> str:
        """How the device holds the weights: "f32", "f16" or "int8"."""
    @property
    def notes(self) -> list[str]:
        """What is worth knowing about how the model was loaded, a line each."""
    @property
    def config(self) -> dict[str, Any]:
        """Sizes and special tokens."""

@final
class TextStream(Iterator[str]):
    """The pieces of a text, as BDH.generate_stream and Session.generate_stream make them. close(), or
    the end of the iterator's life, stops the device.
    """
    def __iter__(self) -> TextStream: ...
    def __next__(self) -> str: ...
    def close(self) -> None:
        """Stops the device. What it has written and nobody has taken is lost; a session goes on after
        what was taken.
        """

@final
class Completion:
    """A finished text, as BDH.complete returns it."""
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
    def prompt(self) -> str:
        """The prompt."""
    @property
    def index(self) -> int:
        """Number among the prompt's texts, from 0."""
    @property
    def text(self) -> str:
        """The new text, without the prompt."""
    @property
    def tokens(self) -> list[int]:
        """The new tokens."""
    @property
    def finish_reason(self) -> Literal["length", "eos", "stop"]:
        """"length", "eos" or "stop"."""
    @property
    def seed(self) -> Optional[int]:
        """The seed that repeats the text; None for beam search."""
    @property
    def score(self) -> Optional[float]:
        """The score of a text that beam search found; else None."""

@final
class Score:
    """A model's opinion of a text, as BDH.score returns it. Logarithms are natural."""
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
    def tokens(self) -> list[int]:
        """The tokens."""
    @property
    def logprobs(self) -> list[Optional[float]]:
        """Log-probability of each token given those before it; None for the first."""
    @property
    def total(self) -> float:
        """Their sum."""
    @property
    def mean_loss(self) -> float:
        """Mean negative log-probability of a token."""
    @property
    def perplexity(self) -> float:
        """e to the mean loss."""
    @property
    def bits_per_byte(self) -> Optional[float]:
        """The mean loss in base 2; None where a token is no byte."""

@final
class Session:
    """A conversation whose state stays on the device from turn to turn; BDH.session starts one. If the
    device fails, it goes on on the CPU, with a RuntimeWarning.
    """
    @property
    def device(self) -> str:
        """The device that it runs on; the CPU, if another one has failed since."""
    @property
    def position(self) -> int:
        """Number of tokens read and generated so far."""
    @property
    def seed(self) -> Optional[int]:
        """The seed of the last generation, if there was one."""
    def feed(self, prompt: Union[str, Iterable[int]]) -> None:
        """Reads a text, which is added exactly as it is, or token ids. After a Ctrl-C the rest is read
        before what comes next.
        """
    def generate(
        self, max_new_tokens: Optional[int] = None, **options: Unpack[_Drawing]
    ) -> list[int]:
        """Continues the conversation and returns the new token ids. Options are those of BDH.generate,
        without echo, context and forget_tau. After a Ctrl-C the conversation goes on after what was
        generated until then.
        """
    def generate_text(
        self, max_new_tokens: Optional[int] = None, **options: Unpack[_Drawing]
    ) -> str:
        """As generate, but returns the new text. A character whose last tokens are yet to come is part
        of the text that they come with.
        """
    def generate_stream(
        self, max_new_tokens: Optional[int] = None, **options: Unpack[_Drawing]
    ) -> TextStream:
        """As generate_text, but hands the text out as it comes. The conversation belongs to the stream
        until its end or close(), and goes on after the pieces that were taken. Beam search finds
        whole texts: for generate_text.
        """
    def next_logits(self) -> npt.NDArray[np.float32]:
        """The logits of the token that comes next, a NumPy array [V] of float32, without penalties and
        temperature. The conversation stays as it is.
        """
    def fork(self) -> Session:
        """A second conversation with the same past."""
    def snapshot(self) -> Snapshot:
        """The conversation's state, to go back to."""
    def restore(self, snapshot: Snapshot) -> None:
        """Goes back to a snapshot of this or another conversation with the same model."""
    def reset(self) -> None:
        """Forgets the whole conversation."""
    def save(self, path: Union[str, PathLike[str]]) -> None:
        """Writes a state file, which BDH.load_session and bdh-gpu --load-state read."""

@final
class Snapshot:
    """A conversation's state at one moment, in the host's memory."""
    @property
    def position(self) -> int:
        """Number of tokens read and generated so far."""
    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
    def save(self, path: Union[str, PathLike[str]]) -> None:
        """Writes a state file, which BDH.load_session and bdh-gpu --load-state read."""
