"""Makes the files of this folder with PyTorch and NumPy: python make.py

Every file holds the same small model: one layer, width 4, 2 heads, 6 neurons per head, 5 tokens; element k
of every weight is (k % 17 - 8) / 8, which every dtype can hold.
"""

import argparse
import collections
import dataclasses
import enum
import pathlib

import numpy as np
import torch

SHAPES = {
    "embed.weight": (5, 4),
    "encoder": (2, 4, 6),
    "encoder_v": (2, 4, 6),
    "decoder": (12, 4),
    "lm_head": (4, 5),
}
SIZES = dict(n_layer=1, n_embd=4, n_head=2, mlp_internal_dim_multiplier=3, vocab_size=5)


def array(shape):
    return ((np.arange(np.prod(shape)) % 17 - 8) / 8).astype(np.float32).reshape(shape)


def weights(dtype=torch.float32):
    return {name: torch.from_numpy(array(shape)).to(dtype) for name, shape in SHAPES.items()}


class Kind(enum.Enum):
    SMALL = 1


@dataclasses.dataclass
class Config:
    n_layer: int = 1
    n_embd: int = 4
    dropout: float = 0.1
    n_head: int = 2
    mlp_internal_dim_multiplier: int = 3
    vocab_size: int = 5
    kind: Kind = Kind.SMALL
    path: pathlib.Path = pathlib.PurePosixPath("somewhere")


class Slots:
    __slots__ = tuple(SIZES)


for dtype in ("float32", "float64", "float16", "bfloat16"):
    torch.save(weights(getattr(torch, dtype)), f"{dtype}.pt")

w = weights()
mixed = {name: tensor.to(dtype) for (name, tensor), dtype in zip(w.items(), [torch.float16, torch.bfloat16, torch.float64] * 2)}
torch.save(mixed, "mixed.pt")

# All tensors are views of one storage, with offsets, some transposed, some with gaps.
store = torch.zeros(4096)
views, place = collections.OrderedDict(), 7
for number, (name, shape) in enumerate(SHAPES.items()):
    if number % 2:
        view = store[place : place + 2 * int(np.prod(shape)) : 2].view(shape)
    else:
        view = store[place : place + int(np.prod(shape))].view(shape[::-1]).permute(*reversed(range(len(shape))))
    view.copy_(w[name])
    views[name] = view
    place += 2 * int(np.prod(shape))
torch.save(views, "views.pt")

# Parameters, wrappers in both orders, pickle protocol 4, no checksums.
torch.save({"module._orig_mod." + name: torch.nn.Parameter(t) for name, t in w.items()}, "parameters.pt")
torch.save({"_orig_mod.module." + name: t for name, t in w.items()}, "protocol-4.pt", pickle_protocol=4)
torch.serialization.set_crc32_options(False)
torch.save(w, "no-checksums.pt")
torch.serialization.set_crc32_options(True)

# Training checkpoints with a configuration of one kind or another.
optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(5)}}, "param_groups": [{"lr": 1e-3}]}
slots = Slots()
for key, value in SIZES.items():
    setattr(slots, key, value)
for name, key, config in [
    ("config-dict", "model", {"config": dict(SIZES)}),
    ("config-object", "state_dict", {"config": Config()}),
    ("config-namespace", "model_state_dict", {"args": argparse.Namespace(**SIZES, lr=0.1)}),
    ("config-slots", "model", {"model_args": slots}),
    ("config-beside", "model", dict(SIZES)),
]:
    rng = {"rng": torch.get_rng_state(), "numpy": np.random.RandomState(0).get_state(), "best": np.float64(1.5)}
    torch.save({key: w, "optimizer": optimizer, "step": 7, "loss": torch.tensor(1.0), **rng, **config}, f"{name}.pt")

# What is refused.
torch.save(w, "legacy.pt", _use_new_zipfile_serialization=False)
torch.save(torch.nn.Linear(2, 2), "whole-model.pt")
torch.save({"encoder": torch.zeros(2), "more": {"a": 1}, "embed.weight": torch.zeros(3, dtype=torch.int64)}, "other-dtype.pt")
torch.save({**w, "encoder": torch.zeros(1).expand(2, 4, 6), "lm_head": torch.zeros(1).expand(1 << 20, 1 << 20)}, "expanded.pt")
torch.save({f"encoders.{l}": w["encoder"] for l in range(2)}, "per-layer.pt")

# The MLX port.
freqs = (np.arange(6) / 64).astype(np.float32).reshape(1, 1, 1, 6)
mlx = {name.replace(".", "_"): array(shape) for name, shape in SHAPES.items()} | {"attn_freqs": freqs}
np.savez("mlx.npz", **mlx)
np.savez_compressed("mlx-compressed.npz", **mlx)
np.savez("mlx-fortran.npz", **{name: np.asfortranarray(value.astype(np.float16)) for name, value in mlx.items()})
np.savez("mlx-double.npz", **{name: value.astype(np.float64) for name, value in mlx.items()})
np.savez("mlx-big-endian.npz", **{name: value.astype(">f4") for name, value in mlx.items()})

# The names of the paper's appendix: N decoded from D twice, and encoded back.
paper = {"embed.weight": "wte.weight", "encoder": "decoder_x", "encoder_v": "decoder_y", "decoder": "encoder", "lm_head": "readout"}
torch.save({paper[name]: tensor for name, tensor in w.items()}, "paper.pt")
