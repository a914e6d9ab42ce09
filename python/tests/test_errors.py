"""Errors name the argument as it is written here, and are of the right exception."""

import json
import os
import subprocess

import pytest

from bdh_gpu import BDH, BDHError


@pytest.mark.parametrize(
    "option, message",
    [
        ({"temperature": -1}, "temperature must be finite and at least 0, got -1"),
        ({"temperature": float("nan")}, "temperature must be finite and at least 0, got NaN"),
        ({"top_p": 0}, "top_p must be above 0 and at most 1, got 0"),
        ({"min_p": 2}, "min_p must be at least 0 and at most 1, got 2"),
        ({"repetition_penalty": 0}, "repetition_penalty must be finite and above 0, got 0"),
        ({"stop": ["a", ""]}, "a stop text must not be empty"),
        ({"num_beams": 0}, "num_beams must be at least 1 and at most 1024, got 0"),
        ({"num_beams": 2, "top_k": 5}, "top_k has no effect in beam search, which draws nothing"),
        ({"length_penalty": 2.0}, "length_penalty and early_stopping are for beam search"),
        ({"eos_token_id": 256}, "eos_token_id must be below the vocabulary size 256, got 256"),
        ({"logit_bias": {256: 1}}, "logit_bias must be for tokens below the vocabulary size 256, got 256"),
        ({"logit_bias": {1: -200}}, "logit_bias must be at least -100 and at most 100, got -200 for token 1"),
        ({"max_new_tokens": -1}, "max_new_tokens must be a whole number from 0 to 18446744073709551615, got -1"),
        ({"top_k": -1}, "top_k must be a whole number from 0 to 4294967295, got -1"),
        ({"top_k": 2**40}, "top_k must be a whole number from 0 to 4294967295"),
        ({"early_stopping": "soon"}, 'early_stopping must be True, False or "never", got "soon"'),
        ({"context": "half"}, 'context must be a whole number or "full", got "half"'),
        ({"context": "full", "forget_tau": 3.0}, "forget_tau means nothing with a full context"),
        ({"forget_tau": 0}, "forget_tau must be finite and above 0, got 0"),
        ({"window": 0}, "window must be above 0, got 0"),
        ({"window": 5, "context": "full"}, "window excludes context and forget_tau"),
    ],
)
def test_options_out_of_range(model, option, message):
    for call in [
        lambda: model.generate_text("A", **option),
        lambda: model.generate([1], **option),
        lambda: model.generate_batch(["A"], **option),
        lambda: model.complete(["A"], **option),
        lambda: model.generate_stream("A", **option),
    ]:
        with pytest.raises(ValueError) as error:
            call()
        assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    "option, message",
    [
        ({"temprature": 1}, "generate_text() got an unexpected keyword argument 'temprature'"),
        ({"num_return_sequences": 2}, "generate_text() got an unexpected keyword argument 'num_return_sequences'"),
        ({"temperature": "hot"}, "temperature must be float, not str"),
        ({"top_k": 1.5}, "top_k must be int, not float"),
        ({"stop": 1}, "stop must be str, not int"),
        ({"stop": [1]}, "stop must be str, not int"),
        ({"greedy": "yes"}, "greedy must be bool, not str"),
    ],
)
def test_options_of_the_wrong_kind(model, option, message):
    with pytest.raises(TypeError) as error:
        model.generate_text("A", **option)
    assert str(error.value) == message


def test_inputs_that_are_refused(model):
    for tokens, found in [([1, 256], "token 256 (number 1"), ([-1], "token -1 (number 0"), ([2**70], "token 11805")]:
        for call in [model.generate, model.logits, model.decode]:
            with pytest.raises(ValueError) as error:
                call(tokens)
            assert str(error.value).startswith(found)
            assert "is not in the model's vocabulary of 256; ids run from 0 to 255" in str(error.value)
    with pytest.raises(TypeError):
        model.generate("text")
    with pytest.raises(TypeError):
        model.generate([1.5])
    with pytest.raises(TypeError, match="for one prompt, give"):
        model.generate_batch("text")
    with pytest.raises(ValueError, match="scoring needs at least 2 tokens, got 1"):
        model.score([1])
    with pytest.raises(ValueError, match="num_return_sequences must be at least 1"):
        model.generate_batch(["A"], num_return_sequences=0)


def test_files_that_are_not_there(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or directory; expected a model directory"):
        BDH.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        BDH.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="the state cannot be read"):
        model.load_session(tmp_path / "nowhere")


def test_files_that_are_something_else(model, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"not a model")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BDHError) as error:
        BDH.from_pretrained(tmp_path)
    program = os.environ["BDH_GPU_PROGRAM"]
    run = subprocess.run([program, "info", "--model", str(tmp_path)], capture_output=True, text=True)
    assert run.stderr == f"error: {error.value}\n"
    with pytest.raises(BDHError, match="is not a state file"):
        model.load_session(tmp_path / "config.json")


def test_devices_that_are_not_there():
    with pytest.raises(BDHError, match="no such adapter in any shop"):
        BDH.embedded(device="no such adapter in any shop")
    with pytest.raises(ValueError, match="device is \"\", expected auto, gpu, cpu"):
        BDH.embedded(device="")
    with pytest.raises(ValueError, match="weights is \"f8\", expected auto, f32, f16 or int8"):
        BDH.embedded(weights="f8")
    with pytest.raises(TypeError, match="device must be str or int"):
        BDH.embedded(device=1.5)
    with pytest.raises(ValueError, match="threads is 0: at least one thread is needed"):
        BDH.embedded(device="cpu", threads=0)


def test_the_kind_of_rotary_embedding_can_be_named(root, tmp_path):
    # The paper's names say nothing of it.
    kind = root / "tests" / "checkpoints" / "kinds" / "kubotadaichi-unsaid" / "model_epoch_3.pt"
    weights = tmp_path / "model.pt"
    weights.write_bytes(kind.read_bytes())
    sizes = {"n_layer": 2, "n_embd": 8, "n_head": 2, "mlp_internal_dim_multiplier": 4, "vocab_size": 40}
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    with pytest.raises(BDHError, match="rope"):
        BDH.from_pretrained(weights, device="cpu")
    with pytest.raises(ValueError, match="rope is .sideways"):
        BDH.from_pretrained(weights, device="cpu", rope="sideways")
    totals = [
        BDH.from_pretrained(weights, device="cpu", rope=rope).score([1, 2, 3, 4]).total
        for rope in ("interleaved:65536", "half-split:10000")
    ]
    assert totals[0] != totals[1]
