"""Text in and out: pieces that join, prompts as they are given, models without a tokenizer."""

import json
import struct

import numpy as np
import pytest

from bdh_gpu import BDH

HELLO = ["▁Hello", "▁world", "▁of▁the", "▁sea", "!", "[UNK]"]
CAFE = ["▁Hi", "▁caf", "<0xC3>", "<0xA9>", "▁", "<0xE2>", "<0x82>", "<0xAC>", "s", "[UNK]"]
WORDS = ["un", "##happ", "##y", "people", "##s", ".", "[UNK]"]
LINES = ["Hi", "Ġthere", ".Ċ", "User", "[UNK]"]

METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
FALLBACK = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ],
}
WORD_PIECE = {"type": "WordPiece", "prefix": "##", "cleanup": True}


def write_chain(folder, size):
    """A model in which token t is followed by token t + 1."""
    folder.mkdir(exist_ok=True)
    config = {"n_layer": 1, "n_embd": size, "n_head": 1, "mlp_internal_dim_multiplier": 2, "vocab_size": size}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {
        "embed.weight": np.eye(size, dtype=np.float32),
        "encoder": np.zeros((1, size, 2 * size), np.float32),
        "encoder_v": np.zeros((1, size, 2 * size), np.float32),
        "decoder": np.zeros((2 * size, size), np.float32),
        "lm_head": np.roll(np.eye(size, dtype=np.float32), 1, axis=1),
    }
    header, data = {}, b""
    for name, tensor in tensors.items():
        offsets = [len(data), len(data) + tensor.nbytes]
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": offsets}
        data += tensor.tobytes()
    head = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + data)
    return folder


def write_tokenizer(folder, tokens, pre_tokenizer, decoder, kind="WordLevel", normalizer=None):
    model = {"type": kind, "unk_token": "[UNK]", "vocab": {token: number for number, token in enumerate(tokens)}}
    if kind == "WordPiece":
        model.update(continuing_subword_prefix="##", max_input_chars_per_word=100)
    parts = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": normalizer}
    parts.update(pre_tokenizer=pre_tokenizer, post_processor=None, decoder=decoder, model=model)
    (folder / "tokenizer.json").write_text(json.dumps(parts), encoding="utf-8")


KINDS = {
    "metaspace": (HELLO, METASPACE, METASPACE, "WordLevel", "Hello", "Hello world of the sea!"),
    "fallback": (CAFE, METASPACE, FALLBACK, "WordLevel", "Hi", "Hi café €s"),
    "word piece": (WORDS, {"type": "Whitespace"}, WORD_PIECE, "WordPiece", "un", "unhappy peoples."),
    "byte level": (LINES, BYTE_LEVEL, BYTE_LEVEL, "WordLevel", "Hi", "Hi there.\nUser"),
}


@pytest.fixture(params=KINDS)
def kind(request, tmp_path):
    tokens, pre_tokenizer, decoder, model, prompt, whole = KINDS[request.param]
    folder = write_chain(tmp_path / "model", len(tokens))
    write_tokenizer(folder, tokens, pre_tokenizer, decoder, model)
    return BDH.from_pretrained(folder, device="cpu"), prompt, whole, len(tokens) - 2


def every_way(model, prompt, count, **options):
    """The new text of every method."""
    options.update(greedy=True)
    session = model.session()
    session.feed(prompt)
    yield session.generate_text(count, **options)
    session.reset()
    session.feed(prompt)
    yield "".join(session.generate_stream(count, **options))
    yield model.complete([prompt], count, **options)[0].text
    yield model.complete([prompt], count, num_beams=2, **options)[0].text
    for echo in (True, False):
        start = len(prompt) if echo else 0
        yield model.generate_text(prompt, count, echo=echo, **options)[start:]
        yield "".join(model.generate_stream(prompt, count, echo=echo, **options))[start:]
        yield "".join(model.generate_stream(prompt, count, echo=echo, num_beams=2, **options))[start:]
        yield model.generate_batch([prompt, prompt], count, echo=echo, **options)[1][start:]


def test_a_continuation_is_the_rest_of_the_whole_text(kind):
    model, prompt, whole, count = kind
    assert set(every_way(model, prompt, count)) == {whole[len(prompt) :]}


def test_pieces_join(kind):
    model, prompt, whole, count = kind
    session = model.session()
    session.feed(prompt)
    pieces = [session.generate_text(1, greedy=True) for _ in range(count)]
    assert prompt + "".join(pieces) == whole
    session.reset()
    session.feed(prompt)
    pieces = ["".join(session.generate_stream(1, greedy=True)) for _ in range(count)]
    assert prompt + "".join(pieces) == whole


def test_a_stop_text_cuts_exactly(kind):
    model, prompt, whole, count = kind
    rest = whole[len(prompt) :]
    for start in range(len(rest)):
        stop = rest[start : start + 2]
        assert set(every_way(model, prompt, count, stop=stop)) == {rest[: rest.index(stop)]}, stop


def test_a_later_text_is_fed_as_it_is(tmp_path):
    tokens = ["▁Hello", ",", "▁,", "[UNK]"]
    folder = write_chain(tmp_path / "model", 4)
    write_tokenizer(folder, tokens, METASPACE, METASPACE)
    model = BDH.from_pretrained(folder, device="cpu")
    session = model.session()
    session.feed("Hello")
    session.feed(",")
    # Token 1 is followed by 2, token 2 by 3.
    assert session.generate(1, greedy=True) == [2]
    session.save(tmp_path / "state")
    again = model.load_session(tmp_path / "state")
    again.feed(" ,")
    assert again.generate(1, greedy=True) == [3]


def test_a_prompt_is_shown_as_it_was_given(tmp_path):
    folder = write_chain(tmp_path / "model", 3)
    write_tokenizer(folder, ["hello", "world", "[UNK]"], {"type": "Whitespace"}, None, normalizer={"type": "Lowercase"})
    model = BDH.from_pretrained(folder, device="cpu")
    assert model.generate_text("HELLO", 1, greedy=True) == "HELLO world"
    assert "".join(model.generate_stream("HELLO", 1, greedy=True)) == "HELLO world"
    assert model.generate_batch(["HELLO"], 1, greedy=True) == ["HELLO world"]


def test_a_tokenizer_may_be_elsewhere(tmp_path):
    tokens, pre_tokenizer, decoder, kind, prompt, whole = KINDS["metaspace"]
    folder = write_chain(tmp_path / "model", len(tokens))
    (tmp_path / "other").mkdir()
    write_tokenizer(tmp_path / "other", tokens, pre_tokenizer, decoder, kind)
    for path in (tmp_path / "other", str(tmp_path / "other" / "tokenizer.json")):
        model = BDH.from_pretrained(folder, device="cpu", tokenizer=path)
        assert model.generate_text(prompt, 4, greedy=True) == whole
    with pytest.raises(FileNotFoundError):
        BDH.from_pretrained(folder, device="cpu", tokenizer=tmp_path / "missing")


def test_without_a_tokenizer_ids_work(tmp_path):
    model = BDH.from_pretrained(write_chain(tmp_path / "model", 300), device="cpu")
    assert model.generate([297], 4, greedy=True) == [297, 298, 299, 0, 1]
    assert model.logits([1, 2]).shape == (2, 300)
    session = model.session()
    session.feed([4])
    assert session.generate(2, greedy=True) == [5, 6]
    for refused in (
        lambda: model.generate_text("a", 1),
        lambda: model.generate_text("", 1),
        lambda: model.generate_stream("a", 1),
        lambda: model.generate_batch(["a"], 1),
        lambda: model.complete(["a"], 1),
        lambda: model.generate([1], 1, stop="x"),
        lambda: model.encode("a"),
        lambda: model.decode([1]),
        lambda: model.score("ab"),
        lambda: session.feed("a"),
        lambda: session.generate_text(1),
        lambda: session.generate_stream(1),
    ):
        with pytest.raises(ValueError, match="300 tokens and no tokenizer"):
            refused()


def test_every_text_has_a_seed_of_its_own(model):
    texts = model.complete(["KING:"] * 3, 20, num_return_sequences=2, temperature=1)
    assert len({text.text for text in texts}) == 6
    for text in texts:
        assert model.complete(["KING:"], 20, temperature=1, seed=text.seed)[0].text == text.text
    same = model.complete(["KING:"] * 2, 20, temperature=1, seed=5)
    assert same[0].text == same[1].text and [text.seed for text in same] == [5, 5]
    pair = model.complete(["KING:"], 20, temperature=1, seed=5, num_return_sequences=2)
    assert pair[0].text == same[0].text and pair[0].seed == 5 != pair[1].seed


def test_greedy_may_stand_beside_beams(model):
    found = model.generate_text("KING:", 8, num_beams=4)
    assert model.generate_text("KING:", 8, num_beams=4, do_sample=False) == found
    assert model.generate_text("KING:", 8, num_beams=4, greedy=True) == found
    with pytest.raises(ValueError, match="do_sample"):
        model.generate_text("KING:", 8, num_beams=4, do_sample=True)
