"""Models by their name on the Hugging Face Hub, from a server on this machine."""

import contextlib
import hashlib
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bdh_gpu import BDH, BDHError

NAME = "somebody/tiny-dragon"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    files = {}
    asked = None

    def do_GET(self):
        self.answer(body=True)

    def do_HEAD(self):
        self.answer(body=False)

    def answer(self, body):
        if self.asked:
            self.asked.set()
            self.server.hold.wait()
        content, etag = self.find()
        # The program that asked may have ended.
        with contextlib.suppress(ConnectionError):
            self.send_response(404 if content is None else 200)
            self.send_header("ETag", f'"{etag}"')
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            if body and content:
                self.wfile.write(content)

    def find(self):
        if self.path == f"/api/models/{NAME}/revision/main":
            siblings = [{"rfilename": name} for name in self.files]
            return json.dumps({"sha": COMMIT, "siblings": siblings}).encode(), "description"
        content = self.files.get(self.path.removeprefix(f"/{NAME}/resolve/{COMMIT}/"))
        if content is None:
            return None, "nothing"
        return content, hashlib.sha256(content).hexdigest()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub(root, tmp_path, monkeypatch):
    model = root / "models" / "bdh-shakespeare"
    names = ["config.json", "generation_config.json", "model.safetensors"]
    handler = type("Handler", (Hub,), {"files": {name: (model / name).read_bytes() for name in names}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.hold = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("NO_PROXY", "*")
    yield server
    server.hold.set()
    server.shutdown()
    server.server_close()


def test_a_model_loads_by_its_name_and_then_without_the_hub(hub, model, monkeypatch):
    options = {"max_new_tokens": 8, "greedy": True}
    downloaded = BDH.from_pretrained(NAME, device="cpu")
    assert downloaded.name == "tiny-dragon"
    assert downloaded.generate_text("KING:", **options) == model.generate_text("KING:", **options)
    hub.shutdown()
    hub.server_close()
    cached = BDH.from_pretrained(NAME, device="cpu")
    assert any("cannot be reached" in note for note in cached.notes)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cached = BDH.from_pretrained(f"{NAME}:model.safetensors", device="cpu")
    assert not any("cannot be reached" in note for note in cached.notes)
    with pytest.raises(FileNotFoundError, match="HF_HUB_OFFLINE"):
        BDH.from_pretrained("somebody/other", device="cpu")


def test_errors_are_of_the_kind_that_paths_have(hub):
    with pytest.raises(FileNotFoundError, match="no such model at http"):
        BDH.from_pretrained("somebody/nothing", device="cpu")
    with pytest.raises(FileNotFoundError, match="has no file"):
        BDH.from_pretrained(f"{NAME}:other.pt", device="cpu")
    with pytest.raises(ValueError, match="expected owner/name"):
        BDH.from_pretrained("a/b@", device="cpu")
    hub.RequestHandlerClass.files = {"model.pt": b"weights", "config.json": b"{}"}
    with pytest.raises(BDHError, match="the file has 7 bytes"):
        BDH.from_pretrained(NAME, device="cpu")


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_stops_a_download_from_a_silent_server(hub):
    hub.RequestHandlerClass.asked = threading.Event()
    # Background jobs of a shell inherit an ignored SIGINT.
    handled = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{handled}; import bdh_gpu; bdh_gpu.BDH.from_pretrained({NAME!r}, device='cpu')"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    hub.RequestHandlerClass.asked.wait()
    process.send_signal(2)
    _, errors = process.communicate()
    assert process.returncode != 0 and "KeyboardInterrupt" in errors, errors
