"""Makes the folder kinds/ with NumPy: python make_kinds.py

Each folder is a small model of random weights in the form of one public kind of BDH checkpoint. Its case.json says how to
load it, and either what a forward pass of that kind gives (computed here, in f64) or the words of the refusal:

    n_layer, rope    options of the loader, where the files do not say
    tokens           token ids
    logits           the last position's, all of them
    total            the log-probability of all tokens but the first, in nats
    text, ids        a text and its tokens, or null where texts are refused
    refused          what the one line of error must hold
"""

import collections
import io
import json
import pathlib
import pickle
import shutil
import struct
import sys
import types
import zipfile

import numpy as np

KINDS = pathlib.Path(__file__).parent / "kinds"
OFFICIAL = ["embed.weight", "encoder", "encoder_v", "decoder", "lm_head"]
PAPER = {"embed.weight": "wte.weight", "encoder": "decoder_x", "encoder_v": "decoder_y", "decoder": "encoder", "lm_head": "readout"}
L, D, H, M = 2, 8, 2, 4
N = M * D // H


# --- the model ---


def norm(v):
    return (v - v.mean(-1, keepdims=True)) / np.sqrt(v.var(-1, keepdims=True) + 1e-5)


def interleaved(n=N, base=65536):
    return base ** (-(np.arange(n) // 2 * 2) / n) / (2 * np.pi)


def half_split(n=N, base=10000):
    return base ** (-2 * (np.arange(n) % (n // 2)) / n) / (2 * np.pi)


def neighbours(q):
    return np.stack((-q[..., 1::2], q[..., ::2]), -1).reshape(q.shape)


def halves(q):
    half = q.shape[-1] // 2
    return np.concatenate((-q[..., half:], q[..., :half]), -1)


def forward(w, tokens, freqs=None, turned=neighbours, n_layer=L):
    """Logits of every position: the definition, all tokens at once."""
    freqs = interleaved(w["encoder"].shape[-1]) if freqs is None else freqs
    w = {name: np.asarray(value, np.float64) for name, value in w.items()}
    phase = 2 * np.pi * np.arange(len(tokens))[:, None] * freqs
    x = norm(w["embed.weight"][tokens])
    for _ in range(n_layer):
        u = np.maximum(x @ w["encoder"], 0)
        q = u * np.cos(phase) + turned(u) * np.sin(phase)
        y = np.tril(q @ q.transpose(0, 2, 1), -1) @ x
        g = u * np.maximum(norm(y) @ w["encoder_v"], 0)
        x = norm(x + norm(g.transpose(1, 0, 2).reshape(len(tokens), -1) @ w["decoder"]))
    return x @ w["lm_head"]


def weights(seed, vocab=40, n=N):
    rng = np.random.default_rng(seed)
    shapes = [(vocab, D), (H, D, n), (H, D, n), (H * n, D), (D, vocab)]
    return {name: rng.normal(size=shape, scale=0.5).astype(np.float32) for name, shape in zip(OFFICIAL, shapes)}


def tokens(vocab=40):
    return [int(t) for t in np.random.default_rng(1).integers(0, vocab, 20)]


def expected(logits, ids):
    steps = logits[:-1] - logits[:-1].max(-1, keepdims=True)
    log = steps - np.log(np.exp(steps).sum(-1, keepdims=True))
    total = sum(log[t, token] for t, token in enumerate(ids[1:]))
    return {"tokens": ids, "total": round(float(total), 7), "logits": [round(float(v), 7) for v in logits[-1]]}


def sizes(vocab=40, **more):
    return dict(n_layer=L, n_embd=D, n_head=H, mlp_internal_dim_multiplier=M, vocab_size=vocab, dropout=0.1) | more


def with_freqs(w, freqs=None):
    stored = interleaved() if freqs is None else freqs
    return w | {"attn.freqs": stored.astype(np.float32).reshape(1, 1, 1, -1)}


# --- files ---


def bf16(value):
    """The nearest bf16, as the upper halves of f32: ties to even."""
    bits = np.asarray(value, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def widened(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def safetensors(path, tensors):
    spelled = {"float32": "F32", "float16": "F16", "uint16": "BF16", "int64": "I64"}
    header, data = {}, b""
    for name, value in tensors.items():
        raw = np.ascontiguousarray(value).tobytes()
        header[name] = {"dtype": spelled[value.dtype.name], "shape": list(value.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


class Storage:
    def __init__(self, array):
        self.array = np.ascontiguousarray(array)


class Tensor:
    """An array that is pickled as a tensor."""

    def __init__(self, array):
        self.array = np.asarray(array)

    def __reduce__(self):
        strides = [int(np.prod(self.array.shape[i + 1 :])) for i in range(self.array.ndim)]
        arguments = (Storage(self.array), 0, self.array.shape, tuple(strides), False, collections.OrderedDict())
        return sys.modules["torch._utils"]._rebuild_tensor_v2, arguments


def _rebuild_tensor_v2():
    raise NotImplementedError


def stand_in(module, **members):
    """A module that only lends names to pickles."""
    sys.modules[module] = made = types.ModuleType(module)
    for name, member in members.items():
        member.__module__, member.__qualname__ = module, name
        setattr(made, name, member)
    return made


STORAGES = {dtype: type(name, (), {}) for dtype, name in [("float32", "FloatStorage"), ("float16", "HalfStorage"), ("int64", "LongStorage")]}
stand_in("torch", **{storage.__name__: storage for storage in STORAGES.values()})
stand_in("torch._utils", _rebuild_tensor_v2=_rebuild_tensor_v2)
stand_in("bdh", BDHConfig=type("BDHConfig", (), {}), BDH_GPUConfig=type("BDH_GPUConfig", (), {}))


def torch_save(path, value):
    """The zip archive that torch.save writes."""
    storages = []

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            if not isinstance(item, Storage):
                return None
            storages.append(item.array)
            return "storage", STORAGES[item.array.dtype.name], str(len(storages) - 1), "cpu", item.array.size

    stream = io.BytesIO()
    Pickler(stream, protocol=2).dump(value)
    members = {"data.pkl": stream.getvalue(), "byteorder": b"little", "version": b"3\n"}
    members |= {f"data/{number}": array.tobytes() for number, array in enumerate(storages)}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(f"{path.stem}/{name}"), content)


def state_dict(w, prefix=""):
    return collections.OrderedDict((prefix + name, Tensor(value)) for name, value in w.items())


def instance(module, name, attributes):
    made = getattr(sys.modules[module], name)()
    made.__dict__.update(attributes)
    return made


def kind(name, case, **files):
    """Writes a folder; a value is the text of a JSON file, or a function that writes a file."""
    folder = KINDS / name
    folder.mkdir(parents=True)
    (folder / "case.json").write_text(json.dumps(case) + "\n")
    for file, content in files.items():
        path = folder / file.replace("__", ".")
        content(path) if callable(content) else path.write_text(json.dumps(content) + "\n")


def pt(value):
    return lambda path: torch_save(path, value)


def st(tensors):
    return lambda path: safetensors(path, tensors)


def right(w, vocab=40, **how):
    """The case of a model that loads. `how` goes to the forward pass."""
    return expected(forward(w, tokens(vocab), **how), tokens(vocab))


def main():
    shutil.rmtree(KINDS, ignore_errors=True)

    # Official names in one container or another.
    w = weights(1)
    container = {"model": state_dict(with_freqs(w)), "config": sizes(), "step": 30000}
    kind("d3vmeh-bytes", right(w), model__pt=pt(container))
    w = weights(2, 300)
    container = {"model": state_dict(with_freqs(w)), "config": sizes(300), "step": 30000}
    kind("d3vmeh-bpe8k", right(w, 300) | {"text": "To be", "ids": None}, model__pt=pt(container))
    twin = {"transformer.wte.weight": weights(3)["embed.weight"], "transformer.h.0.attn.c_attn.weight": np.zeros((24, 8), np.float32)}
    container = {"model": state_dict(twin), "config": sizes(), "arch": "gpt", "step": 1}
    kind("d3vmeh-gpt-twin", {"refused": '"arch" is "gpt"'}, model__pt=pt(container))
    w = weights(4)
    prefixed = {"model." + name: value for name, value in with_freqs(w).items()}
    kind("slayerlab", right(w), config__json=sizes(max_seq_len=2048), model__safetensors=st(prefixed))
    w = weights(5)
    container = {"model": state_dict(with_freqs(w)), "config": sizes(block_size=512), "iters": 3000, "final_loss": 1.37}
    kind("agk4444", right(w), bdh_tinyshakespeare__pt=pt(container))
    w = weights(6)
    kind("akarki15", right(w) | {"n_layer": L}, bdh_shakespeare__pt=pt(state_dict(with_freqs(w))))
    w = weights(7)
    container = {"model_state_dict": state_dict(with_freqs(w)), "optimizer_state_dict": {"state": {}}, "step": 5}
    kind("doomdagadiggiedahdah", right(w) | {"n_layer": L}, model__pt=pt(container))
    w = weights(8)
    extra = {f"attns.{l}.freqs": interleaved().astype(np.float32).reshape(1, 1, 1, -1) for l in range(L)}
    extra["lm_gate"] = np.zeros(D, np.float32)
    container = {"model": state_dict(w | extra), "optimizer": {}, "step": 100}
    kind("adamskrodzki", right(w), config__json=sizes(), model__pt=pt(container))

    # What the port's libraries write.
    w = weights(9)
    w["lm_head"] = np.ascontiguousarray(w["embed.weight"].T)
    ported = {"backbone." + name: value for name, value in w.items() if name != "lm_head"}
    config = dict(model_type="bdh", architectures=["BDHForCausalLM"], num_hidden_layers=L, hidden_size=D, num_attention_heads=H,
                  mlp_internal_dim_multiplier=M, vocab_size=40, tie_word_embeddings=True, sliding_window=None, use_cache=True)
    kind("jploski-tied", right(w), config__json=config, model__safetensors=st(ported))
    w = weights(10)
    named = {name.replace(".", "_"): value for name, value in with_freqs(w).items()} | {"lm_gate": np.zeros(D, np.float32)}
    kind("severian42", right(w), config__json=sizes(), model__npz=lambda path: np.savez(path, step=np.int64(7), loss=np.float32(1.5), **named))
    w = weights(11, 300)
    vocab = {"to": 0, "be": 1, "or": 2, "not": 3, "[UNK]": 4}
    words = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
             "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
             "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"}}
    config = sizes(300, tokenizer_type="bpe", tokenizer_path="/home/me/tokenizer", pad_token_id=0)
    kind("reginaldferland", right(w, 300) | {"text": "to be or not", "ids": [0, 1, 2, 3]}, config__json=config, model__pt=pt(state_dict(with_freqs(w))))
    (KINDS / "reginaldferland/tokenizer").mkdir()
    (KINDS / "reginaldferland/tokenizer/tokenizer.json").write_text(json.dumps(words) + "\n")

    # The paper's names.
    w = weights(12)
    renamed = {PAPER[name]: value for name, value in w.items()}
    case = right(w, freqs=half_split(), turned=halves)
    kind("kubotadaichi", case | {"n_layer": L, "rope": "half-split:10000"}, model_epoch_3__pt=pt(state_dict(renamed)))
    kind("kubotadaichi-unsaid", {"n_layer": L, "refused": "rope"}, model_epoch_3__pt=pt(state_dict(renamed)))
    config = {k: v for k, v in sizes(n_neurons=H * N, rope_theta=65536).items() if k != "mlp_internal_dim_multiplier"}
    container = {"model": state_dict(with_freqs(renamed)), "config": instance("bdh", "BDH_GPUConfig", config)}
    kind("sgabriel92", {"refused": '"n_neurons" is 32'}, model__pt=pt(container))

    # Halves.
    w = {name: value.astype(np.float16) for name, value in weights(13).items()}
    half = w | {"attn.freqs": interleaved().astype(np.float16).reshape(1, 1, 1, -1)}
    kind("5bridge-f16", right(w) | {"n_layer": L}, model__pt=pt(state_dict(half)))
    w = {name: bf16(value) for name, value in weights(14).items()}
    half = w | {"attn.freqs": bf16(interleaved()).reshape(1, 1, 1, -1)}
    kind("bfloat16", right({k: widened(v) for k, v in w.items()}), config__json=sizes(), model__safetensors=st(half))

    # Official names, and configurations that say more.
    w = weights(15)
    kind("tasmay", right(w), config__json=sizes(attn_window=None, latent_token_id=None), model__safetensors=st(with_freqs(w)))
    kind("tasmay-window", {"refused": '"attn_window" is 4'}, config__json=sizes(attn_window=4), model__safetensors=st(with_freqs(w)))
    w = weights(16)
    for name, steps, case in [("eberlful", 1, right(w)), ("eberlful-latent", 3, {"refused": '"latent_reasoning_steps" is 3'})]:
        config = sizes(latent_reasoning_steps=steps, loss_schedule="ramp", context_length=256, learning_rate=3e-4)
        container = {"state_dict": state_dict(with_freqs(w), "network."), "hyper_parameters": config, "pytorch-lightning_version": "2.5"}
        kind(name, case, last__ckpt=pt(container))
    w = weights(17)
    config = sizes(per_layer_weights=False, architecture_variant="bdh_v1", activation_history_mix=0.0, attention_decay=None, compute_ticks=1)
    container = {"model": state_dict(with_freqs(w)), "config": instance("bdh", "BDHConfig", config)}
    kind("aomukai", right(w), model__pt=pt(container))
    layers = {f"{name}.{l}": w[name] for name in ["encoder", "encoder_v", "decoder"] for l in range(L)}
    container = {"model": state_dict(layers), "config": instance("bdh", "BDHConfig", config | {"per_layer_weights": True})}
    kind("aomukai-per-layer", {"refused": '"per_layer_weights" is true'}, model__pt=pt(container))
    # Grown from 12 to 16 neurons: the first keep the frequencies that they were trained with.
    w = weights(18)
    freqs = np.concatenate((interleaved(12), interleaved(16)[12:])).astype(np.float32)
    kind("saga-grown", right(w, freqs=freqs), config__json=sizes(), model__pt=pt(state_dict(with_freqs(w, freqs))))
    w = weights(19)
    chars = "\n !,.:;?ABCDEFGHIJabcdefghijklmnopqrstuv"[:40]
    container = {"model": state_dict(with_freqs(w)), "config": sizes(), "stoi": {c: i for i, c in enumerate(chars)}, "itos": dict(enumerate(chars))}
    kind("characters", right(w) | {"text": "a bad", "ids": [chars.index(c) for c in "a bad"]}, model__pt=pt(container))
    w = weights(20)
    parts = [["model._orig_mod.embed.weight", "model._orig_mod.encoder"], ["model._orig_mod.encoder_v", "model._orig_mod.decoder", "model._orig_mod.lm_head"]]
    names = [f"model-{number + 1:05}-of-00002.safetensors" for number in range(2)]
    index = {"metadata": {}, "weight_map": {name: names[number] for number, part in enumerate(parts) for name in part}}
    kind("sharded", right(w), config__json=sizes())
    (KINDS / "sharded/model.safetensors.index.json").write_text(json.dumps(index) + "\n")
    for name, part in zip(names, parts):
        safetensors(KINDS / "sharded" / name, {key: w[key.removeprefix("model._orig_mod.")] for key in part})
    kind("sharded-part-missing", {"refused": names[1]}, config__json=sizes())
    (KINDS / "sharded-part-missing/model.safetensors.index.json").write_text(json.dumps(index) + "\n")
    shutil.copy(KINDS / "sharded" / names[0], KINDS / "sharded-part-missing")

    # Other models.
    w = weights(21)
    other = {"E": w["decoder"], "Dx": w["encoder"], "Dy": w["encoder_v"], "readout": w["lm_head"], "emb.weight": w["embed.weight"], "pos.weight": w["embed.weight"]}
    kind("krychu", {"refused": 'tensor "decoder_x" is missing'}, config__json=sizes(), model__pt=pt(state_dict(other)))
    other = {f"layers.{l}.{name}": w[name] for l in range(L) for name in ["encoder", "decoder"]}
    kind("hohnik", {"refused": 'tensor "layers.0.decoder" belongs to one layer'}, config__json=sizes(), model__pt=pt(state_dict(other)))
    other = {"to_qk.weight": w["embed.weight"], "proj_up.weight": w["embed.weight"], "to_logits.weight": w["lm_head"]}
    kind("lucidrains", {"refused": 'tensor "encoder" is missing'}, config__json=sizes(), model__pt=pt(state_dict(other)))
    kind("alibi", {"refused": '"rotary_embedding" is "alibi"'}, config__json=sizes(rotary_embedding="alibi"), model__safetensors=st(w))


if __name__ == "__main__":
    main()
