"""Long runs of a server: soak.py PROGRAM WHAT [OPTIONS OF THE SERVER].

WHAT is a word, or a word and a number, as in requests=100000:

  independence   requests in random order at several concurrencies, a tenth of them cancelled: every
                 text is the one that `generate --seed` writes
  cancellations  connections closed while queued, read, streamed and drawn from: memory stays flat,
                 counters add up
  requests       short requests, memory stays flat

Uses the standard library only.
"""

import asyncio
import json
import random
import subprocess
import sys
import threading
import time

program, what, options = sys.argv[1], sys.argv[2], sys.argv[3:]
what, _, number = what.partition("=")
FLAT = 8 << 20
device = ["--device", options[options.index("--device") + 1]] if "--device" in options else []


class Server:
    def __init__(self, *more):
        command = [program, "serve", "--port", "0", *options, *more]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.port = int(self.process.stderr.readline().rsplit(":", 1)[1])
        while "is ready" not in self.process.stderr.readline():
            pass
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        assert self.process.wait(60) == 0

    async def send(self, body):
        """Opens a connection and sends a request."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        data = json.dumps(body).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)
        await writer.drain()
        return reader, writer

    async def answer(self, body):
        """Status and body of an answer, chunks put together."""
        reader, writer = await self.send(body)
        data = await reader.read()
        writer.close()
        head, _, rest = data.partition(b"\r\n\r\n")
        if b"chunked" in head.lower():
            parts = b""
            while rest:
                size, _, rest = rest.partition(b"\r\n")
                parts, rest = parts + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
            rest = parts
        return int(head.split()[1]), rest

    async def texts(self, body):
        status, data = await self.answer(body)
        assert status == 200, data
        if not body.get("stream"):
            return [choice["text"] for choice in json.loads(data)["choices"]]
        found = {}
        events = [line[6:] for line in data.decode().split("\n\n") if line.startswith("data: {")]
        for choice in (choice for event in events for choice in json.loads(event)["choices"]):
            found[choice["index"]] = found.get(choice["index"], "") + choice["text"]
        return [found[index] for index in sorted(found)]

    async def metrics(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        text = (await reader.read()).decode()
        writer.close()
        rows = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("bdh_")]
        return {name: float(value) for name, value in rows}

    async def idle(self):
        """Waits until nothing runs; returns how long that took, and the metrics."""
        begun = time.perf_counter()
        while True:
            metrics = await self.metrics()
            if metrics["bdh_num_requests_running"] + metrics["bdh_num_requests_waiting"] == 0:
                return time.perf_counter() - begun, metrics
            await asyncio.sleep(0.005)

    def memory(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmRSS"))


def total(metrics, name):
    return sum(value for key, value in metrics.items() if key.startswith(name))


async def together(count, concurrency, work):
    """Runs work(0), work(1), … with so many at the same time."""
    numbers = iter(range(count))

    async def worker():
        for index in numbers:
            await work(index)

    await asyncio.gather(*(worker() for _ in range(concurrency)))


def flat(name, before, after):
    print(f"{name}: {before / 2**20:.1f} MiB before, {after / 2**20:.1f} MiB after")
    assert abs(after - before) <= FLAT, name


def mixed(index, chance):
    """A request, and the options that ask `generate` for the same."""
    act = "First Citizen:\nBefore we proceed any further, hear me speak.\n\n" * 5
    prompt = ["KING:\n", "To be", act, act[:100], act[: 64 + index % 60], "é"][index % 6]
    body = {"prompt": prompt, "max_tokens": chance.randint(1, 60), "seed": chance.randint(0, 9)}
    arguments = ["--prompt", prompt, "-n", str(body["max_tokens"]), "--seed", str(body["seed"])]
    if index % 3 == 0:
        body["stop"] = ["e", "\n\n"]
        arguments += ["--stop", "e", "--stop", "\n\n"]
    if index % 4 == 0:
        body["n"] = chance.randint(2, 4)
        arguments += ["--num-return-sequences", str(body["n"])]
    if index % 5 == 0:
        body["logit_bias"] = {"101": -100, "32": 1.5}
        arguments += ["--logit-bias", "101=-100,32=1.5"]
    if index % 7 == 0:
        body |= {"temperature": 0.7, "top_k": 20, "repetition_penalty": 1.2}
        arguments += ["--temperature", "0.7", "--top-k", "20", "--repetition-penalty", "1.2"]
    if index % 2:
        body["stream"] = True
    return body, arguments


def generated(arguments):
    command = [program, "generate", *device, "--quiet", "--no-echo", "--format", "jsonl", *arguments]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [row["text"] for row in sorted(map(json.loads, output.splitlines()), key=lambda row: row["index"])]


async def independence(count):
    chance = random.Random(7)
    requests = [mixed(index, chance) for index in range(count)]
    expected = [generated(arguments) for _, arguments in requests]
    for concurrency in [1, 4, 16, 64]:
        order = list(range(count))
        chance.shuffle(order)
        leaving = set(chance.sample(order, count // 10))
        with Server("--parallel", "8", "--queue", "1000") as server:

            async def work(place):
                index = order[place]
                body = requests[index][0]
                if index in leaving:
                    _, writer = await server.send(body)
                    await asyncio.sleep(chance.random() / 20)
                    writer.close()
                else:
                    found = await server.texts(body)
                    assert found == expected[index], (concurrency, body, found, expected[index])

            await together(count, concurrency, work)
            _, metrics = await server.idle()
            hits = metrics["bdh_prefix_cache_hits_total"]
        print(f"{count} requests, {concurrency} at a time, {len(leaving)} cancelled: texts equal, {hits:.0f} hits")


async def cancellations(count):
    long = "x" * 60_000
    endless = {"prompt": "A", "max_tokens": 10**8, "seed": 1}
    phases = [endless | {"stream": True}, {"prompt": long, "max_tokens": 5, "seed": 1}, endless, endless]
    chance, sent, longest = random.Random(1), 0, 0.0
    with Server("--parallel", "4", "--queue", "1000") as server:

        async def some(number):
            nonlocal sent, longest

            async def work(index):
                reader, writer = await server.send(phases[index % len(phases)])
                if index % len(phases) == 0 and index % 3 == 0:
                    await reader.read(16)
                else:
                    await asyncio.sleep(chance.random() / 50)
                writer.close()

            await together(number, 16, work)
            sent += number
            seconds, _ = await server.idle()
            longest = max(longest, seconds)

        await some(count // 10)
        before = server.memory()
        while sent < count:
            await some(min(200, count - sent))
        flat(f"{sent} cancellations", before, server.memory())
        _, metrics = await server.idle()
        cancelled = total(metrics, "bdh_cancelled_total")
        print({key: value for key, value in metrics.items() if key.startswith("bdh_cancelled_total")})
        print(f"all slots free {longest * 1e3:.0f} ms after the last close at most")
        # Connections that close before hyper has handed their request over are no requests.
        assert 0.98 * sent <= cancelled <= sent, (cancelled, sent)
        status, _ = await server.answer({"prompt": "A", "max_tokens": 5})
        assert status == 200


async def requests(count):
    with Server("--parallel", "8", "--queue", "1000") as server:

        async def work(index):
            status, data = await server.answer({"prompt": f"Act {index % 1000}", "max_tokens": 2, "seed": index})
            assert status == 200, data

        await together(count // 20, 16, work)
        before = server.memory()
        begun = time.perf_counter()
        await together(count - count // 20, 16, work)
        seconds = time.perf_counter() - begun
        flat(f"{count} requests, {(count - count // 20) / seconds:.0f} a second", before, server.memory())
        _, metrics = await server.idle()
        assert total(metrics, "bdh_request_success_total") == count


counts = {"independence": 200, "cancellations": 10_000, "requests": 100_000}
asyncio.run(globals()[what](int(number or counts[what])))
