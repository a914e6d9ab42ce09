"""Other processes: results that travel there, and models that do not."""

import copy
import os
import pickle
import signal
import sys
import time

import numpy as np
import pytest

from bdh_gpu import BDH, BDHError, Completion


def test_results_are_pickled(model):
    drawn = model.complete(["A", "B"], 3, seed=1)
    found = model.complete(["A"], 3, num_beams=2)
    score = model.score("To be")
    for result in (*drawn, *found, score):
        assert pickle.loads(pickle.dumps(result)) == result
        assert copy.deepcopy(result) == result
    again = pickle.loads(pickle.dumps(drawn[0]))
    assert isinstance(again, Completion) and again.tokens == drawn[0].tokens and again.seed == 1
    assert drawn[0] != drawn[1]


def in_child(work, seconds=20):
    """What a forked process returns, or raises as the text of its error."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001
            result = f"{type(error).__name__}: {error}"
        os.write(writer, pickle.dumps(result))
        os._exit(0)
    os.close(writer)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status == 0
            with os.fdopen(reader, "rb") as pipe:
                return pickle.loads(pipe.read())
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail("the forked process hangs")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked on Unix only")
def test_a_forked_process_hears_why_it_cannot_use_a_model():
    model = BDH.embedded(device="cpu")
    session = model.session()
    session.feed("A")
    stream = model.generate_stream("A", 100000)
    next(stream)
    snapshot = session.snapshot()
    for work in (
        lambda: model.generate_text("A", 3),
        lambda: model.generate_batch(["A"], 3),
        lambda: model.generate_stream("A", 3),
        lambda: next(model.generate_stream("A", 3, num_beams=2)),
        lambda: model.generate([65], 3),
        lambda: model.logits([65, 66]).shape,
        lambda: model.score("AB").total,
        lambda: model.session(),
        lambda: session.feed("B"),
        lambda: session.generate_text(3),
        lambda: session.fork(),
        lambda: session.restore(snapshot),
        lambda: next(stream),
    ):
        error = in_child(work)
        assert error.startswith("BDHError: the model was loaded before this process was forked"), error
    # Words alone need no device, and a model of the process's own works.
    assert in_child(lambda: model.decode(model.encode("AB"))) == "AB"
    own = in_child(lambda: BDH.embedded(device="cpu").generate_text("A", 3, greedy=True))
    assert own == model.generate_text("A", 3, greedy=True)
    assert "at work" in in_child(lambda: repr(session)) and model.name in in_child(lambda: repr(model))
    stream.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked on Unix only")
def test_a_forked_process_ends():
    code = (
        "import os, sys\n"
        "from bdh_gpu import BDH\n"
        "model = BDH.embedded(device='cpu')\n"
        "session = model.session()\n"
        "stream = model.generate_stream('A', 100000); next(stream)\n"
        "child = os.fork()\n"
        "if child == 0: sys.exit(7)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 7)\n"
    )
    import subprocess

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=1800)
    assert (run.returncode, run.stderr) == (0, "")


def test_ids_have_one_dimension(model):
    for wrong in ([[75, 73]], np.array([[75, 73]]), np.zeros((2, 3), int), [np.array([75, 73])]):
        for method in (lambda ids: model.generate(ids, 1), model.logits, model.score, model.decode, model.session().feed):
            with pytest.raises(ValueError, match="one dimension"):
                method(wrong)
    with pytest.raises(ValueError, match=r"shape \(1, 2\)"):
        model.generate(np.array([[75, 73]]), 1)
    assert model.generate(np.array([75, 73]), 1, greedy=True)[:2] == [75, 73]
    assert BDHError
