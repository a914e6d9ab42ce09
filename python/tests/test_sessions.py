"""Conversations: their states can be copied, kept and gone back to."""

import threading

import pytest

from bdh_gpu import BDHError

OPTIONS = dict(max_new_tokens=30, seed=3)


def test_a_session_goes_on_where_it_stopped(model):
    session = model.session()
    assert session.position == 0 and session.seed is None
    session.feed("To be or ")
    assert session.position == 9
    text = session.generate_text(**OPTIONS)
    assert "To be or " + text == model.generate_text("To be or ", **OPTIONS)
    assert session.position == 39 and session.seed == 3
    whole = model.session()
    whole.feed([84, 111])
    whole.feed(" be or ")
    assert model.decode(whole.generate(60, seed=3)) == text + session.generate_text(**OPTIONS)
    session.reset()
    assert session.position == 0
    assert repr(session) == "<bdh_gpu.Session of bdh-shakespeare at position 0>"


def test_copies_go_their_own_ways(model, tmp_path):
    session = model.session()
    session.feed("To be or ")
    session.generate(**OPTIONS)
    snapshot = session.snapshot()
    assert snapshot.position == 39 and snapshot.nbytes > 0
    fork = session.fork()
    session.save(tmp_path / "a.state")
    snapshot.save(tmp_path / "b.state")
    assert (tmp_path / "a.state").read_bytes() == (tmp_path / "b.state").read_bytes()
    expected = session.generate_text(**OPTIONS)
    assert fork.generate_text(**OPTIONS) == expected
    fork.restore(snapshot)
    assert fork.generate_text(**OPTIONS) == expected
    loaded = model.load_session(tmp_path / "a.state")
    assert loaded.position == 39
    assert loaded.generate_text(**OPTIONS) == expected


def test_a_session_goes_on_with_the_best_beam(model):
    session = model.session()
    session.feed("To be or ")
    tokens = session.generate(max_new_tokens=8, num_beams=3)
    assert tokens == model.generate(model.encode("To be or "), max_new_tokens=8, num_beams=3, echo=False)
    assert session.position == 9 + len(tokens)


def test_a_session_continues_in_pieces(model):
    whole, session = model.session(), model.session()
    whole.feed("To be or ")
    session.feed("To be or ")
    for _ in range(2):
        pieces = list(session.generate_stream(100, seed=3))
        assert "".join(pieces) == whole.generate_text(100, seed=3)
        assert len(pieces) > 1
    assert session.position == whole.position == 209 and session.seed == 3


@pytest.mark.parametrize("end", ["close", "drop"])
def test_a_session_goes_on_after_the_pieces_that_were_taken(model, end):
    whole, session = model.session(), model.session()
    whole.feed("To be or ")
    session.feed("To be or ")
    stream = session.generate_stream(10**9, seed=3)
    text = next(stream) + next(stream)
    for call in [lambda: session.position, session.generate, session.generate_stream, session.fork]:
        with pytest.raises(BDHError, match="a stream goes on with this session"):
            call()
    assert repr(session) == "<bdh_gpu.Session of bdh-shakespeare, at work>"
    if end == "close":
        stream.close()
        assert list(stream) == []
    else:
        del stream
    tokens = session.position - 9
    assert whole.generate_text(tokens, seed=3) == text
    assert session.generate_text(**OPTIONS) == whole.generate_text(**OPTIONS)
    # A stream that nobody took from has done nothing.
    session.generate_stream(10**9).close()
    assert session.position == whole.position


def test_a_sessions_stream_does_not_search(model):
    with pytest.raises(ValueError, match="num_beams must be 1 in a session's stream"):
        model.session().generate_stream(num_beams=2)


def test_a_session_is_for_one_thread_at_a_time(model):
    session = model.session()
    session.feed("To be or ")
    refusals = []
    tokens = []

    def generate():
        # Which of the two threads comes second is a matter of luck, but soon one of them does.
        for _ in range(10_000):
            if refusals:
                break
            try:
                tokens.extend(session.generate(10))
            except BDHError as error:
                refusals.append(str(error))

    worker = threading.Thread(target=generate)
    worker.start()
    while worker.is_alive() and not refusals:
        try:
            session.position
        except BDHError as error:
            refusals.append(str(error))
    worker.join()
    assert refusals
    assert all("another thread uses this session" in refusal for refusal in refusals)
    assert session.position == 9 + len(tokens)


def test_a_session_takes_no_context_of_its_own(model):
    with pytest.raises(TypeError, match="unexpected keyword argument 'echo'"):
        model.session().generate(1, echo=False)
    with pytest.raises(TypeError, match=r"session\(\) got an unexpected keyword argument 'top_k'"):
        model.session(top_k=1)
    assert model.session(context=10, forget_tau=3.0).generate(1, seed=1)
