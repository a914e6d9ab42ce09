"""Rows: the same texts in any order, batch and process, and errors that stay with their rows."""

import json
import math
import pickle
import random
import sys
import types

import numpy as np
import pytest
from test_text import HELLO, METASPACE, WORD_PIECE, WORDS, write_chain, write_tokenizer

import bdh_gpu
from bdh_gpu import BDH, BDHError, _place, _rows, batch

OPTIONS = dict(device="cpu", max_new_tokens=8, num_return_sequences=2, temperature=1.0, seed=3)


def rows(count):
    return [{"id": i, "prompt": ["KING:\n", "To be", ""][i % 3] + "!" * (i % 5), "tag": [i]} for i in range(count)]


def by_id(found):
    return sorted(found, key=lambda row: (str(row["id"]), row["index"]))


@pytest.fixture(scope="module")
def generator():
    return batch.Generator(**OPTIONS)


def test_a_rows_texts_depend_on_nothing_else(generator):
    given = rows(24)
    expected = list(generator.rows(given))
    assert [(row["id"], row["index"]) for row in expected] == [(i, k) for i in range(24) for k in (0, 1)]
    assert len({row["text"] for row in expected}) > 40
    for number, size in enumerate([1, 5, 24]):
        shuffled = random.Random(number).sample(given, len(given))
        assert by_id(generator.rows(shuffled, batch_size=size)) == by_id(expected)
    # What ran before leaves nothing, and neither do other threads.
    list(generator.rows([{"id": "x", "prompt": "other"}]))
    assert list(generator.rows(given[5:7])) == expected[10:14]
    other = batch.Generator(threads=1, **OPTIONS)
    assert "1 thread" in other.model.device
    assert list(other.rows(given[::-1][:6])) == [row for i in range(23, 17, -1) for row in expected[2 * i : 2 * i + 2]]


def test_a_rows_seeds_repeat_its_texts(generator):
    [first, second] = generator.rows([{"id": "a", "prompt": "KING:\n"}])
    assert first["seed"] == batch.row_seed(3, "a")
    for row in (first, second):
        [again] = generator.model.complete(["KING:\n"], 8, temperature=1.0, seed=row["seed"])
        assert (again.text, again.finish_reason) == (row["text"], row["finish_reason"])
    both = generator.model.complete(["KING:\n"], 8, temperature=1.0, seeds=[first["seed"]], num_return_sequences=2)
    assert [text.text for text in both] == [first["text"], second["text"]]
    assert (first["prompt_tokens"], first["new_tokens"], first["error"]) == (6, 8, None)


def test_seeds_of_rows_never_change():
    """Texts of earlier releases would not be repeated."""
    assert batch.row_seed(0, 0) == ROW_SEEDS[0]
    assert batch.row_seed(2**64 - 1, -(10**30)) == ROW_SEEDS[1]
    assert batch.row_seed(7, "Café") == ROW_SEEDS[2]
    assert batch.row_seed(np.uint64(7), np.int64(12)) == batch.row_seed(7, 12)
    assert len({batch.row_seed(seed, name) for seed in range(50) for name in [*range(50), *map(str, range(50))]}) == 5000
    for wrong in (None, 1.0, math.nan, True, b"1", "\ud800", [1]):
        with pytest.raises(ValueError, match="the id"):
            batch.row_seed(0, wrong)
    for wrong in (-1, 2**64, 1.5, "1", None):
        with pytest.raises(ValueError, match="seed must be a whole number from 0"):
            batch.row_seed(wrong, 1)


ROW_SEEDS = (17655199194985037457, 548120057462372027, 1318549295417637448)


def test_ids_are_made_of_content():
    assert batch.content_id("a", 1) == batch.content_id("a", 1) != batch.content_id("a", "1")
    values = [("ab", ""), ("a", "b"), ("", "ab"), (b"ab", ""), (None, "ab"), (True,), (1,), (1.0,), ("\ud800",), (b"\xff",)]
    ids = {batch.content_id(*row) for row in values}
    assert len(ids) == len(values) and all(len(name) == 32 for name in ids)
    with pytest.raises(TypeError, match="not list"):
        batch.content_id([1])


BAD = [
    (None, "a", "the id is null"),
    (1.0, "a", "the id must be int or str, not float; pandas"),
    (True, "a", "the id must be int or str, not bool"),
    ("\ud800", "a", "not valid Unicode"),
    (1, None, "the prompt is null"),
    (2, math.nan, "the prompt is null"),
    (3, 5, "the prompt must be a text, not int"),
    (4, "\ud800", "not valid Unicode: surrogates not allowed at 0"),
    (5, b"a\xff", "not valid UTF-8: invalid start byte at byte 1"),
    (6, "a" * 21, "the prompt has 21 tokens, more than the 20"),
]


def test_a_row_that_fails_stays_alone(generator):
    checked = batch.Generator(max_prompt_tokens=20, **OPTIONS)
    bad = [{"id": row_id, "prompt": prompt, "tag": []} for row_id, prompt, _ in BAD]
    good = rows(4)
    found = list(checked.rows([*bad[:5], *good, *bad[5:]]))
    failed = [row for row in found if row["error"] is not None]
    assert len(failed) == len(BAD)
    for row, given, (_, _, why) in zip(failed, bad, BAD):
        assert why in row["error"] and row["id"] is given["id"] and row["prompt"] is given["prompt"]
        assert (row["index"], row["text"], row["finish_reason"], row["seed"], row["new_tokens"]) == (0, None, None, None, 0)
    assert [row for row in found if row["error"] is None] == list(generator.rows(good))
    strict = batch.Generator(on_error="raise", max_prompt_tokens=20, **OPTIONS)
    for row, (_, _, why) in zip(bad, BAD):
        with pytest.raises(batch.RowError, match="the row with the id") as caught:
            list(strict.rows([*good, row]))
        assert why in str(caught.value)
    assert list(strict.rows([{"id": 1, "prompt": b"KING:\n"}]))[0]["text"]


def test_an_empty_prompt_needs_a_beginning(tmp_path):
    folder = write_chain(tmp_path / "model", len(WORDS))
    write_tokenizer(folder, WORDS, {"type": "Whitespace"}, WORD_PIECE, "WordPiece")
    given = [{"id": 1, "prompt": ""}, {"id": 2, "prompt": "un"}]
    none, some = batch.generate(given, folder, device="cpu", max_new_tokens=2, greedy=True)
    assert "names no bos_token_id to start from" in none["error"] and none["text"] is None
    assert some["text"] == "happy" and some["error"] is None
    [row] = batch.score([{"prompt": "", "text": "un"}], folder, device="cpu", prompt_column="prompt")
    assert "names no bos_token_id to start from" in row["error"]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "bos_token_id": 0}))
    [row] = batch.generate(given[:1], folder, device="cpu", max_new_tokens=1, greedy=True)
    assert row["error"] is None and row["prompt_tokens"] == 0 and row["new_tokens"] == 1


def test_a_sequence_without_logits_fails_alone(tmp_path):
    folder = write_chain(tmp_path / "model", 6)
    write_tokenizer(folder, HELLO, METASPACE, METASPACE)
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    # The last 6 · 6 floats are lm_head's. After token 3, a logit overflows.
    head = np.frombuffer(data, np.float32, 36, len(data) - 144).reshape(6, 6)
    head[3, 4] = 3e38
    path.write_bytes(data)
    given = [{"id": i, "prompt": prompt} for i, prompt in enumerate(["Hello", "sea!", "world", "sea"])]
    found = list(batch.generate(given, folder, device="cpu", max_new_tokens=1, temperature=1.0))
    errors = [row for row in found if row["error"]]
    assert errors and len(errors) < len(found), found
    with pytest.raises(BDHError):
        BDH.from_pretrained(folder, device="cpu").complete([row["prompt"] for row in errors], 1, temperature=1.0)
    with pytest.raises(batch.RowError):
        list(batch.generate(given, folder, device="cpu", max_new_tokens=1, temperature=1.0, on_error="raise"))


class Failing:
    """A model that fails so many times."""

    failures = 0
    loads = 0

    def encode(self, text):
        return list(text.encode())

    def _complete(self, prompts, seeds=None, **options):
        if prompts and Failing.failures:
            Failing.failures -= 1
            raise BDHError("the device is lost")
        return [(i, 0, "text", 1, "length", seed, None, None) for i, seed in enumerate(seeds or [])]


def test_a_device_that_fails_gets_one_more_try(monkeypatch):
    def load(source, cpus, gpus):
        Failing.loads += 1
        return Failing()

    monkeypatch.setattr(_place.Source, "load", load)
    worker = _rows.Worker(_rows.Generation.of(), _place.Source())
    Failing.failures = 1
    assert worker.dicts([{"id": 1, "prompt": "a"}])[0]["text"] == "text"
    assert Failing.loads == 2
    Failing.failures = 2
    with pytest.raises(BDHError, match="lost"):
        worker.dicts([{"id": 1, "prompt": "a"}])
    assert worker.dicts([{"id": 1, "prompt": "a"}])[0]["text"] == "text"
    assert Failing.loads == 4


def test_columns_are_checked(generator):
    with pytest.raises(ValueError, match="no column 'id' .they have: prompt.: a row's random numbers come from"):
        list(generator.rows([{"prompt": "a"}]))
    with pytest.raises(ValueError, match="have a column 'text' already"):
        list(generator.rows([{"id": 1, "prompt": "a", "text": "b"}]))
    prefixed = batch.Generator(**{**OPTIONS, "output_prefix": "new_", "id_column": "text", "prompt_column": "text"})
    [row, _] = prefixed.rows([{"text": "b"}])
    assert row["text"] == "b" and row["new_text"] and row["new_index"] == 0
    assert list(generator.rows([])) == []
    for wrong, kind, why in [
        (dict(temprature=1), TypeError, "no generation option 'temprature'"),
        (dict(temperature=-1), ValueError, "temperature must be finite"),
        (dict(seed=-1), ValueError, "seed must be"),
        (dict(num_return_sequences=0), ValueError, "at least 1"),
        (dict(on_error="skip"), ValueError, "on_error"),
        (dict(model=generator.model), TypeError, "give its path"),
        (dict(model_args={"threads": 1}), TypeError, "model_args has 'threads'"),
    ]:
        with pytest.raises(kind, match=why):
            batch.Generator(**{**OPTIONS, **wrong})
    with pytest.raises(ValueError, match="batch_size"):
        generator.rows([], batch_size=0)


def test_the_documents_first_example_runs(root, capsys):
    text = (root / "docs" / "batch.md").read_text(encoding="utf-8")
    exec(text.split("```python\n")[1].split("```")[0], {})
    lines = capsys.readouterr().out
    assert lines.startswith("1 0 ") and "\n2 1 " in lines


def test_prompts_of_a_batch_may_have_seeds(model):
    texts = model.complete(["KING:"] * 3, 20, seeds=[7, 8, 7], temperature=1.0)
    assert texts[0].text == texts[2].text != texts[1].text
    assert texts[1] == model.complete(["KING:"], 20, seed=8, temperature=1.0)[0]
    assert model.generate_batch(["KING:"] * 2, 20, seeds=(7, 8), temperature=1.0, echo=False) == [
        text.text for text in texts[:2]
    ]
    assert [text.seed for text in model.complete(["A", "B"], 2, seeds=[1, 2], num_beams=2)] == [None, None]
    assert model.complete([], 2, seeds=[]) == []
    with pytest.raises(ValueError, match="2 seeds for 3 prompts"):
        model.complete(["A"] * 3, 2, seeds=[1, 2])
    with pytest.raises(ValueError, match="0 seeds for 1 prompts"):
        model.complete(["A"], 2, seeds=[])
    with pytest.raises(ValueError, match="not both"):
        model.complete(["A"], 2, seeds=[1], seed=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'seeds'"):
        model.generate_text("A", 2, seeds=[1])


def test_texts_are_scored(model):
    scorer = batch.Scorer(device="cpu", max_tokens=30)
    texts = ["To be or not to be", "x", None, "Café", "a" * 31, b"\xff"]
    found = list(scorer.rows({"text": text, "k": i} for i, text in enumerate(texts)))
    assert [row["k"] for row in found] == list(range(6))
    expected = model.score(texts[0])
    assert found[0]["logprob"] == pytest.approx(expected.total, abs=1e-12)
    assert found[0]["bits_per_byte"] == pytest.approx(expected.bits_per_byte)
    assert (found[0]["scored_tokens"], found[0]["greedy"], found[0]["error"]) == (17, False, None)
    assert found[3]["scored_tokens"] == 4
    for number, why in [(1, "nothing to score"), (2, "null"), (4, "31 tokens, more than the 30"), (5, "UTF-8")]:
        assert why in found[number]["error"] and found[number]["logprob"] is None
    with pytest.raises(batch.RowError, match="row number 1"):
        list(batch.score([{"text": "ab"}, {"text": None}], device="cpu", on_error="raise"))


def test_continuations_are_scored(model):
    scorer = batch.Scorer(device="cpu", prompt_column="prompt")
    prompt = "To be or not "
    text = model.generate_text(prompt, 10, greedy=True, echo=False)
    greedy, other, first = scorer.rows(
        [{"prompt": prompt, "text": text}, {"prompt": prompt, "text": "zz"}, {"prompt": "", "text": "KING"}]
    )
    assert greedy["greedy"] and not other["greedy"]
    whole = model.score(prompt + text)
    assert greedy["logprob"] == pytest.approx(sum(whole.logprobs[-10:]))
    assert greedy["scored_tokens"] == 10 and other["logprob"] < -8
    assert whole.greedy[0] is None and all(whole.greedy[-10:])
    # An empty prompt is a line end.
    assert first["scored_tokens"] == 4
    assert first["logprob"] == pytest.approx(model.score("\nKING").total)
    with pytest.raises(TypeError, match="no option 'temperature' of scores"):
        batch.Scorer(temperature=1)
    with pytest.raises(ValueError, match="no column 'prompt'"):
        list(scorer.rows([{"text": "a"}]))


def test_bytes_are_counted_beside_tokens(tmp_path):
    folder = write_chain(tmp_path / "model", len(HELLO))
    write_tokenizer(folder, HELLO, METASPACE, METASPACE)
    [row] = batch.score([{"text": "Hello world of the sea!"}], folder, device="cpu")
    assert row["scored_tokens"] == 4
    assert row["bits_per_byte"] == pytest.approx(-row["logprob"] / math.log(2) / len(" world of the sea!"))
    [row] = batch.score([{"prompt": "Hello", "text": " world"}], folder, device="cpu", prompt_column="prompt")
    assert row["scored_tokens"] == 1 and row["greedy"]
    assert row["bits_per_byte"] == pytest.approx(-row["logprob"] / math.log(2) / 6)


def test_tables_keep_their_columns(generator):
    pyarrow = pytest.importorskip("pyarrow")
    given = rows(6)
    given[2]["prompt"] = None
    table = pyarrow.Table.from_pylist(given)
    found = generator.table(table)
    expected = list(generator.rows(given))
    assert found.to_pylist() == expected
    assert found.schema.field("seed").type == pyarrow.uint64() and found.column_names[:3] == table.column_names
    # Nothing comes of nothing, with the same schema; a chunked table is no other.
    assert generator.table(table.slice(0, 0)).schema == found.schema
    assert generator.table(pyarrow.concat_tables([table.slice(0, 2), table.slice(2)])).equals(found)
    names = table.column("prompt").dictionary_encode()
    assert generator.table(table.set_column(1, "prompt", names)).column("text").to_pylist() == [
        row["text"] for row in expected
    ]
    broken = pyarrow.array([b"a\xff", b"KING:\n"]).view(pyarrow.string())
    for column in (broken, broken.dictionary_encode(), broken.cast(pyarrow.large_string())):
        wrong, right, _ = generator.table(pyarrow.table({"id": [1, 2], "prompt": column})).drop(["prompt"]).to_pylist()
        assert "not valid UTF-8" in wrong["error"] and right["error"] is None
    scores = batch.Scorer(device="cpu").table(pyarrow.table({"text": ["To be", None]}))
    assert scores.column("scored_tokens").to_pylist() == [4, 0]
    assert scores.schema.field("greedy").type == pyarrow.bool_()


def test_frames_keep_their_columns(generator):
    pandas = pytest.importorskip("pandas")
    given = rows(6)
    given[2]["prompt"] = None
    frame = pandas.DataFrame(given, index=range(10, 16))
    found = generator.frame(frame)
    expected = list(generator.rows(given))
    assert list(found.index) == list(range(11))
    assert found["text"].tolist()[:4] == [row["text"] for row in expected[:4]]
    assert found["seed"].dtype == "UInt64" and found["seed"].tolist()[:2] == [row["seed"] for row in expected[:2]]
    assert found["error"].notna().sum() == 1 and found["tag"].tolist() == [row["tag"] for row in expected]
    assert list(generator.frame(frame[:0]).columns) == list(found.columns)


def test_spark_is_given_functions_that_travel(generator, monkeypatch):
    """What mapInArrow and mapInPandas call, without Spark; tests/batch has it."""
    pyarrow, pandas = pytest.importorskip("pyarrow"), pytest.importorskip("pandas")
    from bdh_gpu import spark

    resources = {}
    context = types.SimpleNamespace(cpus=lambda: 1, resources=lambda: resources)
    module = types.ModuleType("pyspark")
    module.TaskContext = types.SimpleNamespace(get=lambda: context)
    monkeypatch.setitem(sys.modules, "pyspark", module)
    options = {name: value for name, value in OPTIONS.items() if name != "device"}
    given = [{"id": row["id"], "prompt": row["prompt"]} for row in rows(6)]
    given[2]["prompt"] = None
    expected = list(generator.rows(given))
    function = pickle.loads(pickle.dumps(spark.generate_arrow(**options)))
    batches = pyarrow.Table.from_pylist(given).to_batches(max_chunksize=4)
    found = pyarrow.Table.from_batches(function(iter(batches)))
    assert found.schema.field("seed").type == pyarrow.decimal128(20, 0)
    number = lambda row: {**row, "seed": row["seed"] if row["seed"] is None else int(row["seed"])}  # noqa: E731
    assert [number(row) for row in found.to_pylist()] == expected
    # The worker's processors are the model's threads, and the model stays.
    kept = spark._kept[1]
    assert "1 thread" in kept.model.device
    function = pickle.loads(pickle.dumps(spark.generate_pandas(**options)))
    frames = list(function(iter([pandas.DataFrame(given[:3]), pandas.DataFrame(given[3:])])))
    assert spark._kept[1] is kept
    joined = [number(row) for frame in frames for row in frame.astype(object).to_dict("records")]
    assert [(row["id"], row["seed"]) for row in joined] == [(row["id"], row["seed"]) for row in expected]
    assert [row["text"] for row in joined if row["seed"]] == [row["text"] for row in expected if row["seed"]]
    # A task with a graphics card has that one; there is none here, or another.
    resources["gpu"] = types.SimpleNamespace(addresses=["0"])
    monkeypatch.setattr(_place, "adapter_of", lambda gpu: "no such adapter " + gpu)
    with pytest.raises(BDHError, match="no such adapter 0"):
        list(spark.generate_arrow(**options)(iter(batches)))


def test_a_clusters_gpu_is_found_by_its_place(monkeypatch):
    software = (0, "llvmpipe", "software", "")
    cards = [(1, "B", "discrete", "0000:65:00.0"), (2, "A", "discrete", "0000:17:00.0")]
    smi = "0, GPU-aa11, 00000000:17:00.0\n1, GPU-bb22, 00000000:65:00.0\n"

    def run(command, **options):
        assert command[0] == "nvidia-smi"
        return types.SimpleNamespace(stdout=smi)

    monkeypatch.setattr(_place.subprocess, "run", run)
    monkeypatch.setattr(_place._native, "_adapters", lambda: [software, *cards])
    assert [_place.adapter_of(gpu) for gpu in ("0", "1", "GPU-bb22", "GPU-aa")] == [2, 1, 1, 2]
    with pytest.raises(BDHError, match="GPU 7, assigned to this worker, cannot be told: 1: B .0000:65"):
        _place.adapter_of("7")
    monkeypatch.setattr(_place._native, "_adapters", lambda: [software, cards[0]])
    assert _place.adapter_of("7") == 1
    monkeypatch.setattr(_place._native, "_adapters", lambda: [software])
    with pytest.raises(BDHError, match="show no graphics card"):
        _place.adapter_of("0")
    assert all(len(adapter) == 4 for adapter in bdh_gpu._native._adapters())


def test_a_worker_has_the_threads_it_was_given(monkeypatch):
    for cpus, threads in [(0, 1), (0.5, 1), (1.0, 1), (3.7, 3)]:
        assert f"{threads} thread" in _place.Source().load(cpus, []).device
    assert "2 thread" in _place.Source(threads=2).load(1, []).device
    monkeypatch.setattr(_place, "adapter_of", lambda gpu: f"no such adapter {gpu}")
    with pytest.raises(BDHError, match="no such adapter 1"):
        _place.Source().load(1, ["1", "2"])
