"""Unmodified clients of the OpenAI API against a running server: clients.py URL PROGRAM.

The server runs the shipped model on the CPU and takes any model's name.
"""

import subprocess
import sys

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


for check in [plain, several, streamed, closed, logprobs, errors, other_packages]:
    check()
    print(f"{check.__name__}: ok")
