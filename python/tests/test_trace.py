"""Neurons, states, contributions and sources are those of the reference; looking changes nothing."""

import html.parser
import json
import os
import subprocess
import sys
from base64 import b64decode

import numpy as np
import pytest
from test_logits import golden
from test_text import write_chain

import bdh_gpu
from bdh_gpu import BDH, BDHError

FOLDERS = ["micro", "odd-shapes", "one-head", "deep"]
TOLERANCE = 1e-4
HOSTILE = "</script><img src=x onerror=alert(1)>\"'&amp;<!--\u202e\u2028é\t\n"


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def device(request):
    if request.param == "gpu" and not os.environ.get("BDH_GPU_FAULTS"):
        try:
            BDH.embedded(device="gpu")
        except BDHError as error:
            pytest.skip(str(error))
    return request.param


@pytest.fixture(scope="module", params=FOLDERS)
def traced(request, root, device):
    """The reference's numbers, and the trace of its text."""
    folder = root / "tests" / "golden" / request.param
    expected = golden(folder / "golden.safetensors")
    model = BDH.from_pretrained(folder, device=device, weights="f32", watchable=True)
    return expected, model.trace(expected["tokens"].ravel(), context="full")


@pytest.fixture(scope="module")
def trace(model):
    return model.trace("To be or not to be")


def close(got, expected):
    assert got.shape == expected.shape
    # Absolute up to 1, relative from there: read-outs go into the hundreds.
    assert (np.abs(got - expected) / np.maximum(1, np.abs(expected))).max() < TOLERANCE


def test_neurons_are_those_of_the_reference(traced):
    expected, trace = traced
    u, g = expected["x_sparse"], expected["x_sparse"] * expected["y_sparse"]
    layers, tokens, heads, neurons = u.shape
    assert (trace.layers, trace.heads, trace.neurons_per_head, len(trace)) == (layers, heads, neurons, tokens)
    for csr, reference in [(trace.u, u), (trace.g, g)]:
        assert csr.shape == (tokens * layers, heads * neurons)
        for layer in range(layers):
            dense = csr.dense(layer)
            assert dense.dtype == np.float32
            close(dense, reference[layer].reshape(tokens, -1))
            assert np.array_equal(dense, csr.dense(layer - layers))
            for token in (0, tokens // 2, -1):
                indices, values = csr.row(token, layer)
                assert np.array_equal(np.flatnonzero(dense[token]), indices)
                assert np.array_equal(dense[token][indices], values)


def test_the_state_is_that_of_the_reference(traced):
    expected, trace = traced
    state = expected["state"]
    for layer in range(trace.layers):
        for head in range(trace.heads):
            stored, read = trace.state(layer, head, as_read=False), trace.state(layer, head)
            close(stored, state[layer, head])
            # Phases turn the two rows of a pair, and keep their length.
            close(lengths(read), lengths(state[layer, head]))
    assert not np.array_equal(read, stored)


def lengths(state):
    return np.sqrt((state.reshape(-1, 2, state.shape[1]) ** 2).sum(axis=1))


def test_contributions_sum_to_the_read_out(traced):
    expected, trace = traced
    layers, tokens, heads, neurons = expected["y_sparse"].shape
    positive = 0
    for token in [0, 1, tokens // 2, tokens - 1, 5]:
        for layer in range(layers):
            fires = {f"{index // neurons}.{index % neurons}" for index in trace.u.row(token, layer)[0]}
            for neuron in range(token % 7, heads * neurons, 31):
                name = f"{neuron // neurons}.{neuron % neurons}"
                given = trace.contributions(token, layer, name)
                assert {contribution.neuron for contribution in given} <= fires
                values = [contribution.value for contribution in given]
                assert values == sorted(values, key=abs, reverse=True)
                z = expected["y_sparse"][layer, token, neuron // neurons, neuron % neurons]
                assert max(sum(values), 0.0) == pytest.approx(z, abs=TOLERANCE)
                positive += z > 0
    assert positive > 10
    assert given == trace.contributions(token, layer, neuron)


def test_sources_sum_to_what_is_read(traced):
    expected, trace = traced
    x, y = expected["x"], expected["y_kv"]
    for token in [0, len(trace) // 2, len(trace) - 1, 3]:
        for layer in range(trace.layers):
            sources = trace.sources(token, layer)
            assert sorted(source.token for source in sources) == list(range(token))
            read = np.zeros(y[layer, token].shape)
            for source in sources:
                read += np.outer(source.scores, x[layer, source.token])
            close(read, y[layer, token])
            if token:
                assert sum(source.share for source in sources) == pytest.approx(1, abs=TOLERANCE)
                assert abs(sources[0].share) == max(abs(source.share) for source in sources)


def test_a_state_as_read_is_what_the_next_token_reads(root):
    folder = root / "tests" / "golden" / "micro"
    model = BDH.from_pretrained(folder, device="cpu", weights="f32")
    expected = golden(folder / "golden.safetensors")
    tokens = expected["tokens"].ravel()
    before = model.trace(tokens[:20], context="full")
    u = expected["x_sparse"][:, 20]
    for layer, head in np.ndindex(u.shape[:2]):
        read = u[layer, head] @ before.state(layer, head)
        close(read, expected["y_kv"][layer, 20, head].astype(np.float32))


def test_forgetting_is_that_of_generating(model):
    text = "To be or not to be, that is the question"
    full, short = model.trace(text, context="full"), model.trace(text, context=4, forget_tau=2.0)
    assert not np.array_equal(full.g.dense(-1), short.g.dense(-1))
    logits = model.logits(text, context=4, forget_tau=2.0).astype(np.float64)
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    bits = [-logprobs[i, token] / np.log(2) for i, token in enumerate(short.tokens[1:])]
    assert np.isnan(short.surprise[0])
    assert short.surprise[1:] == pytest.approx(bits, abs=1e-4)
    # A past that is forgotten is no source.
    assert short.sources(-1, 3)[0].token > 20


def test_a_trace_has_its_text(model, trace):
    assert trace.text == "To be or not to be" and trace.tokens == model.encode(trace.text)
    assert "".join(trace.pieces) == trace.text and len(trace.pieces) == len(trace.tokens) == len(trace)
    split = model.trace("é!")
    assert split.pieces == ["", "é", "!"]
    ids = model.trace(np.array([75, 195]))
    assert ids.pieces == ["K", r"\xc3"] and ids.tokens == [75, 195]
    assert repr(trace) == "<bdh_gpu.Trace of bdh-shakespeare: 18 tokens, 4 layers, 4 × 1024 neurons>"


def test_a_model_without_a_tokenizer_has_no_pieces(tmp_path):
    # No neuron of this one ever fires.
    trace = BDH.from_pretrained(write_chain(tmp_path / "model", 300), device="cpu").trace([1, 2, 3])
    for text in [lambda: trace.text, lambda: trace.pieces]:
        with pytest.raises(ValueError, match="300 tokens and no tokenizer"):
            text()
    assert trace.sources(2, 0)[0].piece == "" and trace.contributions(2, 0, 0) == []
    assert trace.topk(0, 0) == [] and not trace.u.dense(0).any() and not trace.state(0, 0).any()
    assert ">1 </span>" in trace._repr_html_()


def test_the_strongest_neurons_come_first(trace):
    top = trace.topk(10, 2, k=5)
    assert len(top) == 5 and len(trace.topk(10, 2)) == 16
    assert [(-firing.g, -firing.u) for firing in top] == sorted((-firing.g, -firing.u) for firing in top)
    for firing in top:
        head, index = map(int, firing.neuron.split("."))
        column = head * trace.neurons_per_head + index
        assert (firing.u, firing.g) == (trace.u.dense(2)[10, column], trace.g.dense(2)[10, column])
    assert trace.topk(10, 2, k=0) == [] and len(trace.topk(10, 2, k=10**6)) == len(trace.u.row(10, 2)[0])
    assert isinstance(top[0], bdh_gpu.Firing)


def test_arrays_are_copied_once_and_read_only(trace):
    assert trace.u.values is trace.u.values and trace.u is trace.u
    arrays = [trace.u.indptr, trace.u.indices, trace.g.values, trace.surprise, trace.state(0, 0), trace.u.row(0, 0)[1]]
    assert [array.dtype.name for array in arrays] == ["int64", "int32"] + ["float32"] * 4
    assert not any(array.flags.writeable for array in arrays)
    assert trace.state(0, 0).base is not None


def test_an_archive_holds_every_neuron(trace, tmp_path):
    trace.save_npz(tmp_path / "trace.npz")
    with np.load(tmp_path / "trace.npz") as archive:
        assert archive["tokens"].tolist() == trace.tokens
        assert archive["shape"].tolist() == [len(trace), trace.layers, trace.heads, trace.neurons_per_head]
        for name, csr in [("u", trace.u), ("g", trace.g)]:
            assert np.array_equal(archive[f"{name}_indptr"], csr.indptr)
            assert np.array_equal(archive[f"{name}_indices"], csr.indices)
            assert np.array_equal(archive[f"{name}_data"], csr.values)
    with pytest.raises(FileNotFoundError, match="cannot be written"):
        trace.save_npz(tmp_path / "nowhere" / "trace.npz")


def test_fifty_texts_are_the_same_before_and_after(model):
    def texts():
        return [model.generate_text("To be or ", 24, seed=seed) for seed in range(50)]

    before = texts()
    trace = model.trace(before[0])
    trace.state(0, 0)
    trace.contributions(-1, 0, 0)
    trace._repr_html_()
    assert texts() == before
    watchable = BDH.embedded(device="cpu", watchable=True)
    assert watchable.generate_text("To be or ", 24, seed=7) == before[7]


class Tags(html.parser.HTMLParser):
    """What an HTML text holds."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attributes)

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        raise AssertionError("a comment")


def test_the_table_of_a_hostile_text_is_text(model):
    table = model.trace(HOSTILE)._repr_html_()
    found = Tags(table)
    assert found.tags == {"div", "table", "thead", "tbody", "tr", "th", "td", "span"}
    assert found.attributes == {"style", "colspan", "dir", "title"}
    assert "</script><img src=x onerror=alert(1)>\"'&amp;<!--⟨U+202E⟩⟨U+2028⟩é⇥\t↵\n" in found.text
    assert "\u202e" not in table and "bits" in found.text


def test_the_table_is_bounded(model):
    trace = model.trace("To be or not to be. " * 100)
    table = trace._repr_html_()
    assert len(table.encode()) <= 200_000
    small = trace._repr_html_(max_bytes=10_000)
    assert 5_000 < len(small.encode()) <= 10_000
    assert Tags(small).text.endswith(" tokens more")
    assert Tags(small).tags >= {"table"} and small.endswith("</div>")


def test_the_page_holds_the_text_and_labels(trace, tmp_path):
    trace.save_html(tmp_path / "page.html", title="A title", labels={"0.1": "one", "3.1021": {"name": "<two>"}})
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and "<title>A title</title>" in page
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert data["text"] == trace.text and data["labels"] == {"0.1": {"name": "one"}, "3.1021": {"name": "<two>"}}
    assert "<two>" not in page
    with pytest.raises(FileNotFoundError, match="cannot be written"):
        trace.save_html(tmp_path / "nowhere" / "page.html")


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda model, trace: model.trace(""), ValueError, "there is nothing to trace: the text is empty"),
        (lambda model, trace: model.trace([300]), ValueError, "token 300 (number 0"),
        (lambda model, trace: model.trace("A", top_k=1), TypeError, "trace() got an unexpected keyword argument 'top_k'"),
        (lambda model, trace: model.trace("A", context="half"), ValueError, "context must be a whole number"),
        (lambda model, trace: trace.topk(18, 0), IndexError, "token 18 is out of range: there are 18"),
        (lambda model, trace: trace.topk(-19, 0), IndexError, "token -19 is out of range: there are 18"),
        (lambda model, trace: trace.u.dense(4), IndexError, "layer 4 is out of range: there are 4"),
        (lambda model, trace: trace.state(0, 4), IndexError, "head 4 is out of range: there are 4"),
        (lambda model, trace: trace.contributions(0, 0, 4096), IndexError, "neuron 4096 is out of range"),
        (lambda model, trace: trace.contributions(0, 0, "4.0"), ValueError, "neuron 4.0 does not exist"),
        (lambda model, trace: trace.contributions(0, 0, "four"), ValueError, '"four" is no neuron'),
        (lambda model, trace: trace.html(labels=[1]), TypeError, "labels: expected "),
        (lambda model, trace: trace.html(labels={"9.9": "x"}), ValueError, "labels: neuron 9.9 does not exist"),
        (lambda model, trace: trace.html(labels={"0.0": 1}), TypeError, "labels: 0.0 must have a name or an object"),
    ],
)
def test_errors_say_what_is_wrong(model, trace, call, error, message):
    with pytest.raises(error) as raised:
        call(model, trace)
    assert str(raised.value).startswith(message)


def test_a_card_must_be_opened_for_it(device):
    model = BDH.embedded(device=device)
    if device == "cpu":
        assert len(model.trace("A")) == 1
        return
    with pytest.raises(BDHError, match="cannot be watched.*; load the model with watchable=True"):
        model.trace("A")


def page_of(widget):
    return json.loads(widget.data.decode())


def stored(widget):
    """Bytes that a notebook stores for a widget."""
    return len(widget.data) * 4 / 3 + len(json.dumps(widget._esm)) + len(json.dumps(widget._css))


def test_a_widget_shows_the_page(trace):
    pytest.importorskip("anywidget")
    widget = bdh_gpu.view(trace, labels={"0.1": "one"}, height=500, max_bytes=10**8)
    page = page_of(widget)
    assert page["text"] == page["title"] == trace.text
    assert page["labels"] == {"0.1": {"name": "one"}}
    assert page["state"] and page["series"] and widget.height == "500px"
    assert "export default" in widget._esm and ".bdh" in widget._css


def test_a_widget_has_a_size_that_notebooks_bear(model):
    pytest.importorskip("anywidget")
    text = model.generate_text("KING:", 115, seed=1)
    trace = model.trace(text)
    seen = []
    for max_bytes in [10**8, 2_000_000, 1_000_000, 400_000]:
        widget = bdh_gpu.view(trace, max_bytes=max_bytes)
        assert stored(widget) <= max_bytes
        page = page_of(widget)
        times = np.frombuffer(b64decode(page["state"]["times"]["data"]), "<u4") if "state" in page else []
        seen.append((len(page["text"]), "series" in page, len(times)))
        if "state" in page:
            assert times[-1] == len(page["text"]) and sorted(set(times)) == times.tolist()
            for array in (page["state"][name] for name in ("times", "cells", "maxima")):
                bytes_each = {"u8": 1, "u32": 4, "f32": 4}[array["type"]]
                assert array["shape"][0] == len(times)
                assert len(b64decode(array["data"])) == bytes_each * np.prod(array["shape"])
    (all_, few_times, no_lists, few_tokens) = seen
    assert all_ == (120, True, 24)
    assert few_times[:2] == (120, True) and 0 < few_times[2] < 24
    assert no_lists[:2] == (120, False) and 0 < no_lists[2] < 24
    assert 20 < few_tokens[0] < 120 and text.startswith(page["text"])
    assert page["title"].endswith(f"(the first {few_tokens[0]} of 120 tokens, without lists of neurons and state)")
    with pytest.raises(ValueError, match="max_bytes leaves no room for one token"):
        bdh_gpu.view(trace, max_bytes=1000)


@pytest.mark.parametrize("missing", ["anywidget", "traitlets"])
def test_the_widget_says_what_it_needs(missing):
    source = f"""
import sys
sys.modules[{missing!r}] = None
import bdh_gpu
trace = bdh_gpu.BDH.embedded(device="cpu").trace("A")
try:
    bdh_gpu.view(trace)
except ImportError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert run.stdout == 'bdh_gpu.view needs anywidget and traitlets: pip install "bdh_gpu[view]"\n', run.stderr


def test_traces_are_of_use_without_numpy(tmp_path):
    source = """
import sys
sys.modules["numpy"] = None
from bdh_gpu import BDH
trace = BDH.embedded(device="cpu").trace("To be")
assert trace.topk(4, 0) and trace.contributions(4, 0, "0.0") and trace.sources(4, 0) and trace._repr_html_()
for array in [lambda: trace.surprise, lambda: trace.u.values, lambda: trace.state(0, 0)]:
    try:
        array()
    except ImportError as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("numpy") == 3


def test_edited_neurons_are_constant():
    model = BDH.embedded(device="cpu")
    edited = model.edited(ablate=["3.194"], clamp={"0.7": 1.5})
    text = "What work's, my countrymen, in hand?"
    trace = edited.trace(text)
    per_head = trace.neurons_per_head
    for layer in range(trace.layers):
        u = trace.u.dense(layer)
        assert (u[:, 3 * per_head + 194] == 0).all()
        assert (u[:, 7] == 1.5).all()
    assert (model.logits(text) != edited.logits(text)).any()
    for wrong in ({"ablate": ["9.1"]}, {"ablate": ["1"]}, {"clamp": {"0.1": -1.0}}):
        with pytest.raises(ValueError, match="neuron|no neuron|cannot be clamped"):
            model.edited(**wrong)
