"""Measures a server under load, beside `generate --prompts`: load.py PROGRAM [OPTIONS OF BOTH].

Prints total tokens/s of as many streams as sequences, paired and alternating, and the times to the
first token and between tokens, also while a prompt of 100,000 tokens is read. Uses the standard
library only.
"""

import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time

program, options = sys.argv[1], sys.argv[2:]
TOKENS = 1500
ROUNDS = 3


class Stream(threading.Thread):
    """A request, and when each of its chunks came."""

    def __init__(self, port, prompt, tokens, seed):
        super().__init__()
        self.port, self.times, self.stopped = port, [], False
        self.body = {"prompt": prompt, "max_tokens": tokens, "seed": seed, "stream": True}

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        self.begun = time.perf_counter()
        connection.request("POST", "/v1/completions", json.dumps(self.body))
        response = connection.getresponse()
        while line := response.readline():
            if line.startswith(b"data: {"):
                self.times.append(time.perf_counter())
            if self.stopped:
                break
        response.close()
        connection.close()

    def stop(self):
        self.stopped = True
        self.join()

    def first(self):
        return self.times[0] - self.begun

    def gaps(self):
        return [later - earlier for earlier, later in zip(self.times, self.times[1:])]


def served(port, count):
    streams = [Stream(port, f"Act {index}.\n", TOKENS, index) for index in range(count)]
    begun = time.perf_counter()
    for stream in streams:
        stream.start()
    for stream in streams:
        stream.join()
    return count * TOKENS / (time.perf_counter() - begun), streams


def generated(count):
    """Tokens/s of the program, without its start."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as prompts:
        prompts.writelines(f"Act {index}.\n" for index in range(count))
        prompts.flush()

        def seconds(tokens):
            command = [program, "generate", "--prompts", prompts.name, "--seed", "1"]
            command += ["--max-new-tokens", str(tokens), "--quiet", *options]
            begun = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            return time.perf_counter() - begun

        return count * (TOKENS - 1) / (seconds(TOKENS) - seconds(1))


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] * 1e3


command = [program, "serve", "--port", "0", "--parallel", "16", *options]
server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
port = int(server.stderr.readline().rsplit(":", 1)[1])
while "is ready" not in server.stderr.readline():
    pass
threading.Thread(target=server.stderr.read, daemon=True).start()
try:
    served(port, 1)
    for count in [1, 4, 8, 16]:
        pairs = [(served(port, count)[0], generated(count)) for _ in range(ROUNDS)]
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"{count:2} streams: " + ", ".join(f"{a:.0f} / {b:.0f}" for a, b in pairs) + f": {ratio:.2f}")
    idle = [served(port, 1)[1][0] for _ in range(20)]
    # One that comes while 8 others run, 50 times.
    running = [Stream(port, f"Act {index}.\n", 10**7, index) for index in range(8)]
    for stream in running:
        stream.start()
    time.sleep(1)
    beside = []
    for index in range(50):
        beside.append(Stream(port, f"Scene {index}.\n", 20, index))
        beside[-1].start()
        beside[-1].join()
    for stream in running:
        stream.stop()
    together = []
    for _ in range(3):
        together += served(port, 8)[1]
    for name, first, gaps in [
        ("alone", idle, idle),
        ("beside 8", beside, running),
        ("one of 8 that start together", together, together),
    ]:
        first, gaps = [s.first() for s in first], [gap for s in gaps for gap in s.gaps()]
        print(
            f"{name}: first chunk p50 {percentile(first, 0.5):.1f} ms, p99 {percentile(first, 0.99):.1f} ms; "
            f"between chunks p99 {percentile(gaps, 0.99):.1f} ms"
        )
    running = Stream(port, "KING:\n", 20 * TOKENS, 1)
    running.start()
    time.sleep(0.5)
    reader = Stream(port, "To be, or not to be. " * 4762, 1, 2)
    reader.start()
    reader.join()
    during = [gap for gap, at in zip(running.gaps(), running.times) if reader.begun < at < reader.times[0]]
    print(
        f"beside a prompt of 100,000 tokens ({reader.first():.1f} s): between chunks "
        f"p50 {percentile(during, 0.5):.1f} ms, p99 {percentile(during, 0.99):.1f} ms"
    )
finally:
    server.terminate()
