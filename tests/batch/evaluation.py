"""lm-evaluation-harness gives the same results in its own process (bdh_gpu.lm_eval) as against the
server, for a model of bytes and for one with a tokenizer, and the program agrees: evaluation.py PROGRAM
URL. The URL is that of a server of the shipped model, which takes any model's name.
"""

import contextlib
import io
import json
import math
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import bdh_gpu.lm_eval
import lm_eval
from lm_eval.__main__ import cli_evaluate

PROGRAM, URL = sys.argv[1:]
ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "models" / "bdh-shakespeare"
WORDS = (ROOT / "README.md").read_text(encoding="utf-8")

TEXTS = ["First Citizen:\nHear me speak.\n", "KING RICHARD III:\nNow is the winter\n" * 4, "Café, ¡olé!"]
QUESTIONS = [
    ("To be, or not to", [" be", " xq", " zzz"], 0),
    ("KING RICHARD ", ["##", "III:", "@@"], 1),
    ("my lo", ["zx", "rd"], 1),
    ("", ["the king", "qqqq"], 0),
]
STARTS = ["KING:\n", "To be or ", "O Romeo, Romeo", "First Citizen:\n"]

COMMON = """
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/{name}.jsonl}}}}
test_split: test
task: bdh_{name}
"""
TASKS = {
    "rolling": (
        [{"text": text} for text in TEXTS],
        "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{text}}'\n"
        "metric_list: [{metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}]\n",
    ),
    "choice": (
        [{"query": q, "choices": c, "gold": gold} for q, c, gold in QUESTIONS],
        "output_type: multiple_choice\ndoc_to_text: '{{query}}'\ndoc_to_choice: '{{choices}}'\n"
        "doc_to_target: gold\ntarget_delimiter: ''\n"
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n",
    ),
    "greedy": (
        [{"start": start, "gold": "none"} for start in STARTS],
        "output_type: generate_until\ndoc_to_text: '{{start}}'\ndoc_to_target: '{{gold}}'\n"
        "generation_kwargs: {until: [\"\\n\\n\", ','], max_gen_toks: 40, do_sample: false, temperature: 0.0}\n"
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n",
    ),
    "drawn": (
        [{"start": start, "gold": "none"} for start in STARTS],
        "output_type: generate_until\ndoc_to_text: '{{start}}'\ndoc_to_target: '{{gold}}'\n"
        "generation_kwargs: {until: ['.'], max_gen_toks: 30, do_sample: true, temperature: 0.9, top_p: 0.9}\n"
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n",
    ),
}


def write_tasks(folder):
    for name, (rows, task) in TASKS.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        (folder / f"{name}.yaml").write_text(COMMON.format(folder=folder, name=name) + task)


def write_model(folder):
    """Random weights, and a byte-pair tokenizer of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([WORDS], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    layers, width, heads, neurons, vocab = 2, 32, 2, 64, 400
    config = dict(n_layer=layers, n_embd=width, n_head=heads, vocab_size=vocab)
    config["mlp_internal_dim_multiplier"] = neurons * heads // width
    (folder / "config.json").write_text(json.dumps(config))
    random = np.random.default_rng(1)
    shapes = {
        "embed.weight": (vocab, width),
        "encoder": (heads, width, neurons),
        "encoder_v": (heads, width, neurons),
        "decoder": (heads * neurons, width),
        "lm_head": (width, vocab),
    }
    header, data = {}, b""
    for name, shape in shapes.items():
        tensor = random.normal(0, 0.5, shape).astype(np.float32)
        header[name] = dict(dtype="F32", shape=shape, data_offsets=[len(data), len(data) + tensor.nbytes])
        data += tensor.tobytes()
    head = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + data)


@contextlib.contextmanager
def server(path, log):
    """The address of a server of the model."""
    command = [PROGRAM, "serve", "--device", "cpu", "--port", "0", "--parallel", "4", "--model", str(path)]
    with open(log, "w") as errors, subprocess.Popen(command, stderr=errors) as process:
        try:
            while "is ready" not in (said := Path(log).read_text()):
                if process.poll() is not None:
                    raise AssertionError(said)
            yield next(line for line in said.splitlines() if line.startswith("listening on ")).split()[-1]
        finally:
            process.terminate()


def evaluate(folder, model, arguments):
    results = lm_eval.simple_evaluate(
        model=model,
        model_args=arguments,
        tasks=[f"bdh_{name}" for name in TASKS],
        task_manager=lm_eval.tasks.TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
    )
    metrics = results["results"]
    answers = {task: [sample["resps"] for sample in samples] for task, samples in results["samples"].items()}
    return metrics, answers


def numbers(value):
    """All numbers and texts of nested lists, in order."""
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in numbers(item)]
    return [value]


def compare(path, folder, url, length):
    """Compares the two ways for a model; returns the metrics."""
    arguments = f"base_url={url}/v1/completions,model={path.name},num_concurrent=4,max_length={length}"
    there = evaluate(folder, "local-completions", arguments)
    here = evaluate(folder, "bdh-gpu", f"pretrained={path},device=cpu,max_length={length}")
    furthest = 0.0
    for task, answers in there[1].items():
        pairs = list(zip(numbers(here[1][task]), numbers(answers), strict=True))
        assert pairs, task
        for ours, theirs in pairs:
            if isinstance(theirs, float):
                furthest = max(furthest, abs(ours - theirs) / max(1, abs(theirs)))
            else:
                assert ours == theirs, f"{task}: {ours!r} here, {theirs!r} from the server"
    # The server rounds each token's log-probability to 32 bits.
    assert furthest < 1e-6, furthest
    for task, metrics in there[0].items():
        for name, value in metrics.items():
            if isinstance(value, float):
                assert math.isclose(here[0][task][name], value, rel_tol=1e-6), (task, name, here[0][task], metrics)
    texts = [text for name in ("greedy", "drawn") for text in numbers(there[1][f"bdh_{name}"])]
    assert len(set(texts)) > 4, texts
    print(f"{path.name}, max_length {length}: equal; log-probabilities differ by {furthest:.1e} at most", flush=True)
    return here[0]


def compare_with_program(metrics):
    """The program's own scores lead to the same metrics."""

    def total(text):
        command = [PROGRAM, "score", "--device", "cpu", "--quiet", "--format", "json", "--text", text]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)

    # Texts without context are read after a line end.
    nats = -sum(total("\n" + text)["total"] for text in TEXTS)
    expected = nats / math.log(2) / sum(len(text.encode()) for text in TEXTS)
    found = metrics["bdh_rolling"]["bits_per_byte,none"]
    assert abs(found - expected) < 1e-4, (found, expected)
    right = 0
    for query, choices, gold in QUESTIONS:
        query = query or "\n"
        likelihoods = [sum(total(query + choice)["logprobs"][len(query) :]) for choice in choices]
        right += likelihoods.index(max(likelihoods)) == gold
    assert metrics["bdh_choice"]["acc,none"] == right / len(QUESTIONS), (metrics, right)


def conversations(path):
    """The model's template makes a text of them; without one, an error says so."""
    history = [{"role": "user", "content": "Hi {{ 1 }}"}]
    lm = bdh_gpu.lm_eval.BDHLM(pretrained=str(path), device="cpu")
    try:
        lm.apply_chat_template(history)
        raise AssertionError("a conversation without a template")
    except ValueError as error:
        assert "no chat template" in str(error)
    template = "{% for m in messages %}\n<{{ m.role }}> {{ m.content }}\n{% endfor %}\n"
    template += "{% if add_generation_prompt %}\n<assistant>{% endif %}\n"
    (path / "chat_template.jinja").write_text(template)
    lm = bdh_gpu.lm_eval.BDHLM(pretrained=str(path), device="cpu")
    assert lm.chat_template(True) == template
    assert lm.apply_chat_template(history) == "<user> Hi {{ 1 }}\n<assistant>"
    assert lm.apply_chat_template(history, add_generation_prompt=False) == "<user> Hi {{ 1 }}\n"


def command_line(folder):
    """The harness's command line, which finds the model by name."""
    arguments = ["run", "--model", "bdh-gpu", "--model_args", f"pretrained={SHIPPED},device=cpu"]
    sys.argv = ["lm_eval", *arguments, "--tasks", "bdh_choice", "--include_path", str(folder)]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        cli_evaluate()
    assert "|bdh_choice|" in printed.getvalue(), printed.getvalue()


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tasks(folder)
        (folder / "with-tokenizer").mkdir()
        write_model(folder / "with-tokenizer")
        compare_with_program(compare(SHIPPED, folder, URL, 2048))
        with server(folder / "with-tokenizer", folder / "server.log") as url:
            compare(folder / "with-tokenizer", folder, url, 2048)
            # Rolling windows.
            compare(folder / "with-tokenizer", folder, url, 64)
        conversations(folder / "with-tokenizer")
        command_line(folder)
    assert "torch" not in sys.modules


main()
