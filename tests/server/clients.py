"""Unmodified clients of the OpenAI API against a running server: clients.py URL PROGRAM.

The server runs the shipped model on the CPU and takes any model's name.
"""

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import litellm
import openai
from langchain_openai import OpenAI as LangChain

url, program = sys.argv[1:]
model = "bdh-shakespeare"
client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=2)


def generated(prompt, tokens, seed, *options):
    command = [program, "generate", "--device", "cpu", "--quiet", "--no-echo"]
    command += ["--prompt", prompt, "--max-new-tokens", str(tokens), "--seed", str(seed), *options]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout[:-1]


def plain():
    answer = client.completions.create(model=model, prompt="KING:\n", max_tokens=40, seed=1)
    assert answer.choices[0].text == generated("KING:\n", 40, 1)
    assert answer.choices[0].finish_reason == "length"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (6, 40)
    assert [card.id for card in client.models.list()] == [model]


def several():
    prompts = ["KING:\n", "To be"]
    answer = client.completions.create(model=model, prompt=prompts, n=3, max_tokens=10, seed=1)
    assert [choice.index for choice in answer.choices] == list(range(6))
    assert answer.choices[3].text == generated("To be", 10, 1)


def streamed():
    options = dict(model=model, prompt=["KING:\n", "A"], n=2, max_tokens=30, seed=4)
    texts = [choice.text for choice in client.completions.create(**options).choices]
    parts = [""] * 4
    usage = None
    stream = client.completions.create(**options, stream=True, stream_options={"include_usage": True})
    for chunk in stream:
        for choice in chunk.choices:
            parts[choice.index] += choice.text
        usage = chunk.usage or usage
    assert parts == texts
    assert usage.completion_tokens == 120


def closed():
    stream = client.completions.create(model=model, prompt="A", max_tokens=10**7, stream=True)
    next(iter(stream))
    stream.close()
    plain()


def logprobs():
    answer = client.completions.create(
        model=model, prompt="To be", max_tokens=5, logprobs=3, echo=True, temperature=0
    )
    found = answer.choices[0].logprobs
    assert "".join(found.tokens) == answer.choices[0].text
    assert found.token_logprobs[0] is None and len(found.top_logprobs[1]) >= 3
    for own, top in zip(found.token_logprobs[5:], found.top_logprobs[5:]):
        assert own == max(top.values())


def errors():
    for options, kind in [
        (dict(model=model, temperature=-1), openai.BadRequestError),
        (dict(model="other"), openai.NotFoundError),
        (dict(model=model, max_tokens=-5), openai.BadRequestError),
    ]:
        try:
            client.completions.create(prompt="A", **options)
        except kind as error:
            assert error.body["message"], error.body
        else:
            raise AssertionError(options)


def other_packages():
    # LangChain sends a temperature of its own.
    expected = generated("KING:\n", 20, 3, "--temperature", "0.7")
    chain = LangChain(model=model, base_url=f"{url}/v1", api_key="none", max_tokens=20, seed=3)
    assert chain.invoke("KING:\n") == expected
    assert "".join(chain.stream("KING:\n")) == expected
    answer = litellm.text_completion(
        model=f"text-completion-openai/{model}",
        api_base=f"{url}/v1",
        api_key="none",
        prompt="KING:\n",
        max_tokens=20,
        seed=3,
    )
    assert answer.choices[0].text == generated("KING:\n", 20, 3)


def evaluation():
    """lm-evaluation-harness, with no tokenizer files, agrees with the program."""
    import lm_eval

    texts = ["First Citizen:\nHear me speak.\n", "KING RICHARD III:\nNow is the winter of our discontent\n"]
    questions = [
        ("To be, or not to ", ["be", "xq", "zzz"], 0),
        ("KING RICHARD", ["##", " III:", "@@"], 1),
        ("ROME", ["qq", "O:", "77"], 1),
        ("my lo", ["zx", "rd"], 1),
        ("the k", ["ing", "qzx"], 1),
    ]
    folder = Path(tempfile.mkdtemp())
    rows = [{"text": text} for text in texts]
    (folder / "rolling.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"query": q, "choices": c, "gold": gold} for q, c, gold in questions]
    (folder / "choice.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = """
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/{name}.jsonl}}}}
test_split: test
task: bdh_{name}
"""
    (folder / "rolling.yaml").write_text(
        common.format(folder=folder, name="rolling")
        + "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{text}}'\n"
        + "metric_list: [{metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}]\n"
    )
    (folder / "choice.yaml").write_text(
        common.format(folder=folder, name="choice")
        + "output_type: multiple_choice\ndoc_to_text: '{{query}}'\ndoc_to_choice: '{{choices}}'\n"
        + "doc_to_target: gold\ntarget_delimiter: ''\n"
        + "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    results = lm_eval.simple_evaluate(
        model="local-completions",
        model_args=f"base_url={url}/v1/completions,model={model},num_concurrent=4",
        tasks=["bdh_rolling", "bdh_choice"],
        task_manager=lm_eval.tasks.TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
    )["results"]

    def total(text):
        command = [program, "score", "--device", "cpu", "--quiet", "--format", "json", "--text", text]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)

    # The prefix token is a line end.
    nats = -sum(total("\n" + text)["total"] for text in texts)
    expected = nats / math.log(2) / sum(len(text) for text in texts)
    assert abs(results["bdh_rolling"]["bits_per_byte,none"] - expected) < 1e-4, (results, expected)

    def likelihood(query, choice):
        return sum(total(query + choice)["logprobs"][len(query) :])

    right = 0
    for query, choices, gold in questions:
        found = [likelihood(query, choice) for choice in choices]
        right += found.index(max(found)) == gold
    assert results["bdh_choice"]["acc,none"] == right / len(questions), (results, right)


for check in [plain, several, streamed, closed, logprobs, errors, other_packages, evaluation]:
    check()
    print(f"{check.__name__}: ok")
