"""Logits and scores."""

import json
import math
import struct
import subprocess
import sys

import numpy as np
import pytest

from bdh_gpu import BDH


def golden(path):
    """Tensors of a safetensors file that holds F32, F64 and I32."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    types = {"F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8"}
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] in types:
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            tensors[name] = np.frombuffer(data[start:end], types[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def test_logits_are_those_of_the_reference(root):
    folder = root / "tests" / "golden" / "micro"
    expected = golden(folder / "golden.safetensors")
    micro = BDH.from_pretrained(folder, device="cpu", weights="f32")
    tokens = expected["tokens"].ravel()
    logits = micro.logits(tokens, context="full")
    assert logits.dtype == np.float32
    assert logits.shape == (len(tokens), micro.config["vocab_size"])
    assert logits.flags.c_contiguous and logits.flags.writeable
    assert np.abs(logits - expected["logits"].reshape(logits.shape)).max() < 1e-3
    assert np.array_equal(micro.logits(tokens.tolist(), context="full"), logits)


def test_a_window_hides_what_is_before_it(root):
    micro = BDH.from_pretrained(root / "tests" / "golden" / "micro", device="cpu", weights="f32")
    tokens = [i * 7 % 50 for i in range(40)]
    full, window = micro.logits(tokens, context="full"), micro.logits(tokens, window=9)
    # Chunks end where tokens begin to leave, so sums are rounded elsewhere.
    assert np.abs(window[:10] - full[:10]).max() < 1e-4
    assert np.abs(window[10:] - full[10:]).max() > 1e-3
    assert micro.session(window=9).generate(3, seed=1)


def test_a_session_has_the_logits_of_the_next_token(model):
    session = model.session()
    session.feed("To be or ")
    logits = session.next_logits()
    assert logits.dtype == np.float32 and logits.shape == (256,)
    assert np.abs(logits - model.logits("To be or ")[-1]).max() < 1e-3
    text = "To be or " + session.generate_text(20, seed=3)
    assert text == model.generate_text("To be or ", 20, seed=3), "the conversation is as it was"
    assert np.abs(session.next_logits() - model.logits(text)[-1]).max() < 1e-3
    best = session.next_logits().argmax()
    assert session.generate(1, greedy=True) == [best]


def test_nothing_has_no_logits(model):
    assert model.logits([]).shape == (0, 256)
    assert model.logits("é").shape == (2, 256)


def test_a_score_is_that_of_the_logits(model):
    text = "The king is dead."
    score = model.score(text)
    logits = model.logits(text).astype(np.float64)
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    tokens = model.encode(text)
    assert score.tokens == tokens
    assert score.logprobs[0] is None
    assert score.logprobs[1:] == pytest.approx([logprobs[i, token] for i, token in enumerate(tokens[1:])], abs=1e-6)
    assert score.total == pytest.approx(sum(score.logprobs[1:]))
    assert score.perplexity == pytest.approx(math.exp(score.mean_loss))
    assert score.bits_per_byte == pytest.approx(score.mean_loss / math.log(2))


def test_the_package_is_of_use_without_numpy():
    source = """
import sys
sys.modules["numpy"] = None
from bdh_gpu import BDH
model = BDH.embedded(device="cpu")
assert len(model.generate([1, 2], max_new_tokens=3)) == 5
try:
    model.logits([1, 2])
except ImportError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "numpy" in run.stdout
