"""Texts, batches, streams and token ids agree with each other and with the command line."""

import json
import os
import subprocess
import sys

import pytest

from bdh_gpu import BDH

PROMPT = "To be or "


def test_the_same_seed_writes_the_same_text_everywhere(model):
    options = dict(max_new_tokens=150, temperature=3.0, seed=5)
    text = model.generate_text(PROMPT, **options)
    assert text.startswith(PROMPT)
    pieces = list(model.generate_stream(PROMPT, **options))
    assert pieces[0] == PROMPT
    assert len(pieces) > 2
    assert "".join(pieces) == text
    assert model.generate_batch([PROMPT, "company"], **options)[0] == text
    ids = model.encode(PROMPT)
    tokens = model.generate(ids, **options)
    assert tokens[: len(ids)] == ids and len(tokens) == len(ids) + 150
    assert model.decode(tokens) == text
    assert "".join(model.generate_stream(PROMPT, echo=False, **options)) == text[len(PROMPT) :]
    assert model.generate_text(PROMPT, echo=False, **options) == text[len(PROMPT) :]
    assert model.generate(ids, echo=False, **options) == tokens[len(ids) :]
    assert model.generate_text(PROMPT, **{**options, "seed": 6}) != text


def test_the_command_line_writes_the_same_text(model, root):
    program = os.environ["BDH_GPU_PROGRAM"]
    arguments = ["generate", "--prompt", PROMPT, "--seed", "7", "--max-new-tokens", "60", "--top-k", "20"]
    arguments += ["--device", "cpu", "--format", "jsonl", "--num-return-sequences", "2"]
    printed = subprocess.run([program, *arguments], capture_output=True, text=True, check=True).stdout
    expected = [json.loads(line) for line in printed.splitlines()]
    got = model.complete([PROMPT], max_new_tokens=60, top_k=20, seed=7, num_return_sequences=2)
    fields = ["prompt", "index", "text", "tokens", "finish_reason", "seed"]
    assert [{field: getattr(text, field) for field in fields} for text in got] == [
        {field: text[field] for field in fields} for text in expected
    ]


def test_results_of_a_batch_are_in_order(model):
    prompts = ["Hello", "The meaning of life", "In the beginning"]
    texts = model.generate_batch(prompts, max_new_tokens=5, num_return_sequences=2)
    assert len(texts) == 6
    for index, text in enumerate(texts):
        assert text.startswith(prompts[index // 2])
    assert model.generate_batch([], max_new_tokens=5) == []


def test_beams_find_scored_texts(model):
    found = model.complete([PROMPT], max_new_tokens=12, num_beams=3, num_return_sequences=3)
    scores = [text.score for text in found]
    assert scores == sorted(scores, reverse=True) and len(scores) == 3
    assert all(text.seed is None for text in found)
    best = model.generate_text(PROMPT, max_new_tokens=12, num_beams=3)
    assert best == PROMPT + found[0].text
    assert list(model.generate_stream(PROMPT, max_new_tokens=12, num_beams=3)) == [best]


def test_stops_end_a_text(model):
    text = model.generate_text(PROMPT, max_new_tokens=400, seed=5, stop="\n", echo=False)
    assert text and "\n" not in text
    [text] = model.complete([PROMPT], max_new_tokens=400, seed=5, eos_token_id=[ord("\n"), ord(".")])
    assert text.finish_reason == "eos" and text.text[-1] in "\n."
    assert "eos" in repr(text)


def test_biases_forbid_and_favour_tokens(model):
    text = model.generate_text(PROMPT, max_new_tokens=60, seed=5, logit_bias={ord(" "): -100, ord("z"): 4}, echo=False)
    assert " " not in text and "z" in text
    [found] = model.complete([PROMPT], max_new_tokens=20, num_beams=2, logit_bias={ord(" "): -100})
    assert " " not in found.text
    plain = model.generate_text(PROMPT, max_new_tokens=20, seed=5)
    assert model.generate_text(PROMPT, max_new_tokens=20, seed=5, logit_bias={}) == plain


def test_nothing_to_do_is_the_prompt(model):
    assert model.generate_text(PROMPT, 0) == PROMPT
    assert list(model.generate_stream(PROMPT, max_new_tokens=0)) == [PROMPT]
    assert model.generate([1, 2, 3], max_new_tokens=0) == [1, 2, 3]


def test_none_leaves_an_option_to_the_model(model):
    options = dict(max_new_tokens=20, seed=1)
    nothing = dict.fromkeys(["temperature", "top_k", "stop", "eos_token_id", "num_beams", "early_stopping", "context"])
    assert model.generate_text(PROMPT, **options, **nothing) == model.generate_text(PROMPT, **options)


def test_greedy_is_temperature_zero(model):
    texts = {
        model.generate_text(PROMPT, max_new_tokens=20, **option)
        for option in [{"greedy": True}, {"do_sample": False}, {"temperature": 0}]
    }
    assert len(texts) == 1


def test_a_stream_can_be_closed(model):
    stream = model.generate_stream(PROMPT, max_new_tokens=10**9)
    assert next(stream) == PROMPT
    assert next(stream)
    stream.close()
    assert list(stream) == []
    # Neither does one that is forgotten go on.
    next(model.generate_stream(PROMPT, max_new_tokens=10**9))


def test_the_number_of_threads_changes_no_text(model):
    whole = model.generate_text(PROMPT, 40, seed=3)
    for threads in (1, 3):
        other = BDH.embedded(device="cpu", threads=threads)
        assert f"{threads} thread" in other.device
        assert other.generate_text(PROMPT, 40, seed=3) == whole


def test_a_model_says_what_it_is(model, root):
    assert model.name == "bdh-shakespeare"
    assert "CPU" in model.device
    assert model.config["vocab_size"] == 256
    assert repr(model) == f"<bdh_gpu.BDH bdh-shakespeare ({model.weights}) on {model.device}>"
    same = BDH.from_pretrained(root / "models" / "bdh-shakespeare", device="cpu", weights="f32")
    assert same.weights == "f32"
    assert same.notes == model.notes


@pytest.mark.parametrize("script", ["python/examples/generation_api.py", "README"])
def test_examples_run(root, tmp_path, script):
    if script == "README":
        text = (root / "python" / "README.md").read_text(encoding="utf-8")
        source = "".join(block.split("```")[0] for block in text.split("```python\n")[1:])
        path = tmp_path / "readme.py"
        path.write_text(source, encoding="utf-8")
    else:
        path = root / script
    arguments = [] if script == "README" else [str(root / "models" / "bdh-shakespeare")]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    run = subprocess.run(
        [sys.executable, str(path), *arguments], cwd=tmp_path, capture_output=True, encoding="utf-8", env=environment
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("To be or ")
