"""What the lists of a Trace hold."""

from typing import NamedTuple


class Firing(NamedTuple):
    """A neuron that fires at a token, as Trace.topk returns it."""

    neuron: str
    u: float
    g: float


class Contribution(NamedTuple):
    """What one neuron gives to the read-out of another, as Trace.contributions returns it."""

    neuron: str
    value: float


class Source(NamedTuple):
    """What a past token gives to what a token reads, as Trace.sources returns it."""

    token: int
    piece: str
    share: float
    scores: tuple[float, ...]
