"""Which device a worker of a cluster uses, and the model on it."""

import math
import subprocess
from dataclasses import dataclass
from typing import Any, Mapping, Optional, Sequence, Union

from . import _native


@dataclass(frozen=True)
class Source:
    """A model and how it is loaded: everything that a worker on another machine needs."""

    # A directory, a weights file or a name on the Hub; None is the embedded model.
    model: Optional[str] = None
    device: Union[str, int] = "auto"
    threads: Optional[int] = None
    # Further arguments of BDH.from_pretrained, as pairs.
    arguments: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(
        cls,
        model: Any,
        device: Union[str, int],
        threads: Optional[int],
        arguments: Optional[Mapping[str, Any]],
    ) -> "Source":
        """Checked here, so that a mistake does not travel to a cluster first."""
        if isinstance(model, _native.BDH):
            raise TypeError(
                "model is a loaded model, which works only in the process that loaded it; give its "
                "path, its name on the Hugging Face Hub, or None for the embedded model"
            )
        given = dict(arguments or {})
        allowed = {"weights", "state_dtype"}
        if model is not None:
            allowed |= {"tokenizer", "rope", "dtype"}
        for name in given:
            if name not in allowed:
                names = ", ".join(sorted(allowed))
                raise TypeError(f"model_args has {name!r}; expected some of {names}")
        path = None if model is None else str(model)
        return cls(path, device, threads, tuple(sorted(given.items())))

    def load(
        self, cpus: Optional[float] = None, gpus: Optional[Sequence[str]] = None
    ) -> _native.BDH:
        """Loads the model. cpus and gpus: the processors and the graphics cards that the cluster has
        given to this worker; None where nobody gives out any.
        """
        device, threads = self.device, self.threads
        if device == "auto" and gpus is not None:
            device = adapter_of(gpus[0]) if gpus else "cpu"
        if threads is None and cpus is not None:
            threads = max(1, math.floor(cpus))
        arguments = dict(self.arguments, device=device, threads=threads)
        if self.model is None:
            return _native.BDH.embedded(**arguments)
        return _native.BDH.from_pretrained(self.model, **arguments)


def adapter_of(gpu: str) -> int:
    """The index of the adapter that a cluster calls `gpu`: by NVIDIA's number or identifier. Vulkan
    has an order of its own, so several cards are told apart by their places on the bus.
    """
    adapters = [a for a in _native._adapters() if a[2] != "software"]
    if len(adapters) == 1:
        return adapters[0][0]
    if not adapters:
        raise _native.BDHError(
            f"GPU {gpu} is assigned to this worker, but Vulkan, Metal or Direct3D 12 show no graphics "
            "card here; install the card's Vulkan driver, or give device='cpu'"
        )
    bus = _bus_id(gpu)
    for index, _, _, place in adapters:
        if bus is not None and _place(place) == bus:
            return index
    names = "; ".join(f"{index}: {name} ({place or 'place unknown'})" for index, name, _, place in adapters)
    raise _native.BDHError(
        f"which of the adapters is GPU {gpu}, assigned to this worker, cannot be told: {names}; give "
        "device, an index or a part of the adapter's name"
    )


def _bus_id(gpu: str) -> Optional[tuple[int, ...]]:
    """The place of a card on the bus, if NVIDIA's driver knows it."""
    command = ["nvidia-smi", "--query-gpu=index,uuid,pci.bus_id", "--format=csv,noheader"]
    try:
        # nvidia-smi ignores CUDA_VISIBLE_DEVICES: its numbers are those of the machine, as Ray's are.
        found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    for line in found.splitlines():
        index, uuid, place = ([part.strip() for part in line.split(",")] + ["", "", ""])[:3]
        if gpu == index or (uuid and uuid.startswith(gpu)):
            return _place(place)
    return None


def _place(text: str) -> Optional[tuple[int, ...]]:
    """Domain, bus, device and function; programs write them with different numbers of digits."""
    try:
        domain, bus, rest = text.split(":")
        device, function = rest.split(".")
        return tuple(int(part, 16) for part in (domain, bus, device, function))
    except ValueError:
        return None
