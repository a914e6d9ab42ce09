"""Inference for Baby Dragon Hatchling (BDH) language models on any GPU, and on the CPU.

    from bdh_gpu import BDH

    model = BDH.embedded()                    # or BDH.from_pretrained("path/to/a/model")
    print(model.generate_text("To be or ", max_new_tokens=50, temperature=0.7, min_p=0))
"""

from ._native import (
    BDH,
    BDHError,
    CSR,
    Completion,
    Score,
    Session,
    Snapshot,
    TextStream,
    Trace,
    __version__,
)
from ._tuples import Contribution, Firing, Source
from ._view import view

__all__ = [
    "BDH",
    "BDHError",
    "CSR",
    "Completion",
    "Contribution",
    "Firing",
    "Score",
    "Session",
    "Snapshot",
    "Source",
    "TextStream",
    "Trace",
    "__version__",
    "view",
]
