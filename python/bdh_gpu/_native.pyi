from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from typing import Any, Literal, Optional, TypedDict, Union, final

from typing_extensions import Unpack

import numpy as np
import numpy.typing as npt

from ._tuples import Contribution, Firing, Source

__version__: str
_page_script: str
_page_style: str
_keywords: list[tuple[str, str]]

def _adapters() -> list[tuple[int, str, str, str]]: ...

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
    window: Optional[int]

class _One(_Drawing, _Context, total=False):
    echo: Optional[bool]

class _Complete(_Drawing, _Context, total=False):
    num_return_sequences: Optional[int]
    seeds: Optional[Iterable[int]]

class _Many(_One, _Complete, total=False): ...

class BDHError(Exception): ...

@final
class BDH:
    """A model on a device, ready to generate.

    Options of the generating methods; what is not given, or None, is the model's own:
    max_new_tokens, min_new_tokens, stop (a text or several), eos_token_id (an id or several),
    ignore_eos; temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty,
    frequency_penalty, do_sample, greedy, logit_bias, seed; num_beams, length_penalty,
    early_stopping (True, False or "never"); context (a number of tokens, or "full"), forget_tau,
    window (a number of tokens, on the CPU); echo: False leaves the prompt out of the result.

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
        watchable: bool = False,
    ) -> BDH:
        """Loads a model directory, a weights file, or a model of the Hugging Face Hub by its name,
        "owner/name[@revision][:file]", which is downloaded into the Hub's cache. device: "auto"
        (the best graphics card, else the CPU), "gpu", "cpu", an index, or a part of an adapter's
        name. weights: "auto" (f16 where that changes none), "f32", "f16", "int8". state_dtype: of
        the sequences' states, "float32" (exact), "int16", "int8". threads: of the CPU, by default
        one per processor. tokenizer: a tokenizer.json or its folder, in place of the one beside the
        model. rope: the kind of rotary embedding, "interleaved:65536" or "half-split:10000", for
        checkpoints that do not say it. dtype: another name for weights, as other packages have it:
        "float16", "float32", "int8", torch.float16, numpy.float32, … watchable: whether trace will
        be used; a graphics card must know it from the start, on the CPU it changes nothing.
        """
    @classmethod
    def embedded(
        cls,
        device: Union[str, int] = "auto",
        weights: Literal["auto", "f32", "f16", "int8"] = "auto",
        threads: Optional[int] = None,
        state_dtype: Any = "float32",
        watchable: bool = False,
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
        many for each. seeds: one for each prompt, in place of seed; a prompt with a seed of its own
        gets the same texts in any batch.
        """
    def complete(
        self, prompts: Iterable[str], max_new_tokens: Optional[int] = None, **options: Unpack[_Complete]
    ) -> list[Completion]:
        """As generate_batch, but returns a Completion for each text: the new text and its tokens,
        without the prompt, the seed, the score and why it ended.
        """
    def _complete(
        self,
        prompts: Iterable[Iterable[int]],
        max_new_tokens: Optional[int] = None,
        **options: Unpack[_Complete],
    ) -> list[
        tuple[int, int, str, int, str, Optional[int], Optional[float], Optional[str]]
    ]: ...
    def _chat(self) -> tuple[Optional[str], Optional[str], Optional[str]]: ...
    def _default_prompt(self) -> list[int]: ...
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
        context, forget_tau and window as for generating.
        """
    def score(
        self, tokens: Union[str, Iterable[int]], **options: Unpack[_Context]
    ) -> Score:
        """How likely the model finds a text or token ids, at least two; context, forget_tau and window
        as for generating.
        """
    def trace(
        self, tokens: Union[str, Iterable[int]], **options: Unpack[_Context]
    ) -> Trace:
        """Reads a text or token ids as one context and keeps its neurons: which fire at each token, in
        each layer, as the device computes them. context, forget_tau and window as for generating.
        On a graphics card the model must be loaded with watchable=True. Every layer waits for the
        host, so this is slower than generating. Memory: 8 bytes for each neuron that fires and each
        gate that is open, and as much again once their arrays are used.
        """
    def edited(
        self, ablate: Iterable[str] = (), clamp: Mapping[str, float] = {}
    ) -> BDH:
        """The same model with edited neurons, on a device of the same choice; this one stays as it is.
        ablate: names of neurons, "h.i", that never fire; clamp: activations of 0 or more by name.
        The edits hold in all layers and at all positions.
        """
    def session(self, **options: Unpack[_Context]) -> Session:
        """Starts a conversation; context, forget_tau and window as for generating."""
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
        greedy: list[Optional[bool]],
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
    def greedy(self) -> list[Optional[bool]]:
        """Whether each token is the likeliest one after those before it; None for the first."""
    @property
    def total(self) -> float:
        """The sum of the log-probabilities."""
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
        without echo, context, forget_tau and window. After a Ctrl-C the conversation goes on after
        what was generated until then.
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

@final
class Trace:
    """The neurons of a text, as BDH.trace returns them: what the device computed while it read the
    text as one context. Tokens, layers and heads are counted from 0, or from the end if negative. A
    neuron's name is "HEAD.INDEX"; weights are shared, so it is the same neuron in every layer.

    Arrays are NumPy's, and read-only.
    """
    @property
    def tokens(self) -> list[int]:
        """The token ids."""
    @property
    def text(self) -> str:
        """The text of the tokens."""
    @property
    def pieces(self) -> list[str]:
        """The text of each token. Joined, they are the text: a character of several tokens is the text
        of its last.
        """
    @property
    def surprise(self) -> npt.NDArray[np.float32]:
        """How unexpected each token was, in bits, [T] of float32: -log2 of its probability given those
        before it. NaN for the first.
        """
    @property
    def u(self) -> CSR:
        """Activations above 0, where neurons fire."""
    @property
    def g(self) -> CSR:
        """Gates above 0: activations times what each neuron reads out of the state."""
    @property
    def layers(self) -> int:
        """Number of layers, L."""
    @property
    def heads(self) -> int:
        """Number of heads, H."""
    @property
    def neurons_per_head(self) -> int:
        """Number of neurons in a head, N."""
    def topk(self, token: int, layer: int, k: int = 16) -> list[Firing]:
        """The k neurons of a token in a layer with the largest gates, then activations: a list of
        Firing(neuron, u, g).
        """
    def state(self, layer: int, head: int, as_read: bool = True) -> npt.NDArray[np.float32]:
        """The state after the last token, [N, D] of float32, a row for each neuron of the head. As the
        next token reads it: neuron i reads u of i times row i. With as_read=False, as it is stored:
        each token's part has the rotary phases of its own position, and a row mixes with its pair's
        when it is read. The first call reads the text again, and keeps the state of all layers and
        heads: 4·L·H·N·D bytes, for each of the two forms.
        """
    def contributions(
        self, token: int, layer: int, neuron: Union[str, int]
    ) -> list[Contribution]:
        """Contributions to the read-out z of a neuron, before the rectifier, from the neurons of its
        head that fire: a list of Contribution(neuron, value), the largest first; they sum to z.
        neuron is a name, "3.1021", or a number h·N + i.

        The state is rebuilt on the host, token by token up to this one, and kept there: 4·L·H·N·D
        bytes, and 16 bytes for each neuron that has fired. A later token goes on from there, an
        earlier one begins again; the same token costs nothing more.
        """
    def sources(self, token: int, layer: int) -> list[Source]:
        """Past tokens whose writing a token reads in a layer: a list of Source(token, piece, share,
        scores), the largest share first. Shares sum to 1; the read-out y of a head is the sum of
        scores[head] times the residual stream at that token. Costs are those of contributions.
        """
    def save_npz(self, path: Union[str, PathLike[str]]) -> None:
        """Writes all neurons as a NumPy archive: version, tokens, position, surprise, shape (T, L, H,
        N), and u_indptr, u_indices, u_data, g_indptr, g_indices, g_data.
        """
    def html(
        self, title: Optional[str] = None, labels: Optional[Mapping[str, Any]] = None
    ) -> str:
        """The page of the text, an HTML document with everything that it needs. Reads the text again,
        twice. labels: names of neurons, {"3.1021": "royalty"} or {"3.1021": {"name": …, "note": …,
        "score": …}}.
        """
    def save_html(
        self,
        path: Union[str, PathLike[str]],
        title: Optional[str] = None,
        labels: Optional[Mapping[str, Any]] = None,
    ) -> None:
        """Writes the page that html makes into a file."""
    def _page_data(
        self,
        count: int,
        title: Optional[str] = None,
        labels: Optional[Mapping[str, Any]] = None,
    ) -> bytes: ...
    def _repr_html_(self, max_bytes: int = 200_000) -> str: ...
    def __len__(self) -> int: ...

@final
class CSR:
    """A sparse matrix of numbers above 0, row by row: row token · L + layer, column h·N + i. Its
    arrays are those of scipy.sparse.csr_array((values, indices, indptr), shape).
    """
    @property
    def indptr(self) -> npt.NDArray[np.int64]:
        """Beginnings of the rows in the other two, and the end of the last: [T·L + 1] of int64."""
    @property
    def indices(self) -> npt.NDArray[np.int32]:
        """Columns, ascending in each row: int32."""
    @property
    def values(self) -> npt.NDArray[np.float32]:
        """Their numbers: float32."""
    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns: (T·L, H·N)."""
    def dense(self, layer: int) -> npt.NDArray[np.float32]:
        """A layer with its zeros, a new array [T, H·N] of float32."""
    def row(
        self, token: int, layer: int
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Columns and numbers of a token in a layer."""
