"""Conversations in an object store that two servers share: objects.py PROGRAM.

The store is moto's, an S3 server on loopback.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

program = sys.argv[1]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def request(method, url, body=None, key="one"):
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method)) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def wait_for(url, status):
    for _ in range(600):
        try:
            if request("GET", url)[0] == status:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"{url} is never {status}")


port = free_port()
store = f"http://127.0.0.1:{port}"
environment = os.environ | {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_ENDPOINT_URL": store,
    "AWS_ALLOW_HTTP": "true",
}
moto = subprocess.Popen(
    [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
)
servers = []


def serve(*options):
    port = free_port()
    command = [program, "serve", "--device", "cpu", "--port", str(port), "--parallel", "2", "--api-key", "one"]
    command += ["--api-key", "two", "--state-store", "s3://states/some/path", *options]
    servers.append(subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL))
    url = f"http://127.0.0.1:{port}"
    wait_for(f"{url}/health", 200)
    return url, servers[-1]


def complete(url, key="one", **fields):
    status, body = request("POST", f"{url}/v1/completions", fields, key)
    assert status == 200, body
    return json.loads(body)["choices"][0]


def objects():
    listing = request("GET", f"{store}/states?list-type=2")[1].decode()
    return [part.split("</Key>")[0] for part in listing.split("<Key>")[1:]]


try:
    wait_for(f"{store}/moto-api/", 200)
    assert request("PUT", f"{store}/states")[0] == 200
    first, process = serve()
    second, _ = serve()

    begun = complete(first, prompt="KING:\n", max_tokens=20, seed=1, keep_state=True)
    assert any(key.startswith("some/path/state-") for key in objects()), objects()
    # The other server goes on, and so would the first.
    follow = dict(prompt="\nQUEEN:\n", max_tokens=30, seed=2, state=begun["state"])
    expected = complete(first, **follow)["text"]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert complete(second, **follow)["text"] == expected

    # It is what the command line makes of the file.
    folder = tempfile.mkdtemp()
    status, file = request("GET", f"{second}/v1/states/{begun['state']}/file")
    assert status == 200
    path = os.path.join(folder, "king.state")
    with open(path, "wb") as out:
        out.write(file)
    command = [program, "generate", "--device", "cpu", "--quiet", "--no-echo", "--load-state", path]
    command += ["--prompt", "\nQUEEN:\n", "--max-new-tokens", "30", "--seed", "2"]
    written = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert written == expected + "\n", (written, expected)

    # Another key's conversation is not found, nor is one that was deleted, at any server.
    third, _ = serve("--state-ttl", "3")
    assert request("GET", f"{third}/v1/states/{begun['state']}", key="two")[0] == 404
    kept = complete(third, prompt="A", max_tokens=1, keep_state=True)["state"]
    assert request("DELETE", f"{second}/v1/states/{begun['state']}")[0] == 200
    assert request("GET", f"{third}/v1/states/{begun['state']}")[0] == 404
    assert not any(begun["state"] in key for key in objects()), objects()

    # Use keeps a conversation; without it, it is forgotten, in the store too.
    for _ in range(4):
        time.sleep(1.2)
        assert request("GET", f"{third}/v1/states/{kept}")[0] == 200
    fourth, _ = serve("--state-ttl", "3")
    assert request("GET", f"{fourth}/v1/states/{kept}")[0] == 200
    time.sleep(3.5)
    assert request("GET", f"{third}/v1/states/{kept}")[0] == 404
    assert request("GET", f"{fourth}/v1/states/{kept}")[0] == 404
    print("states in an object store: ok")
finally:
    for process in [*servers, moto]:
        process.kill()
