"""Other threads run while the device works, and Ctrl-C interrupts it."""

import subprocess
import sys

import pytest


def test_two_threads_make_progress_at_the_same_time():
    # A call that held the interpreter would never let the other thread go on.
    source = """
import os, threading
from bdh_gpu import BDH
mine, theirs = BDH.embedded(device="cpu"), BDH.embedded(device="cpu")
begun = threading.Event()
def work():
    begun.set()
    theirs.generate([75], max_new_tokens=10**9)
threading.Thread(target=work, daemon=True).start()
begun.wait()
for _ in range(5):
    assert len(mine.generate([75], max_new_tokens=20)) == 21
print("five", flush=True)
os._exit(0)
"""
    run = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=1800)
    assert run.stdout == "five\n", run.stderr


CALLS = {
    "text": "model.generate_text('A', max_new_tokens=10**9)",
    "batch": "model.generate_batch(['A', 'B'], max_new_tokens=10**9)",
    "beams": "model.generate_text('A', max_new_tokens=10**9, num_beams=2)",
    "stream": "for piece in model.generate_stream('A', max_new_tokens=10**9): pass",
    "prompt": "model.generate(long, max_new_tokens=1)",
    "logits": "model.logits(long[:500_000])",
    "score": "model.score(long)",
    "trace": "model.trace(long[:500_000])",
    "session": "session.generate(10**9)",
    "session's stream": "for piece in session.generate_stream(10**9): pass",
    "feed": "session.feed(long)",
}


@pytest.mark.parametrize("call", CALLS)
def test_ctrl_c_interrupts(call):
    # What is called would take hours. The signal comes when the call has surely begun; were it to come earlier, it
    # would interrupt all the same.
    source = f"""
import os, signal, threading, time
from bdh_gpu import BDH
# Where these tests run in the background of a script, Ctrl-C is ignored from the start.
signal.signal(signal.SIGINT, signal.default_int_handler)
model = BDH.embedded(device="cpu")
session = model.session()
long = model.encode("All the world's a stage. " * 400_000) if {call in ("prompt", "logits", "score", "feed", "trace")} else None
try:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    {CALLS[call]}
except KeyboardInterrupt:
    print("interrupted")
assert len(model.generate([1], max_new_tokens=2)) == 3
"""
    run = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=1800)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "interrupted\n"
