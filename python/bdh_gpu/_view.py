"""The page of a text as a widget, for notebooks."""

import functools
import json
from base64 import b64decode, b64encode
from typing import Any, Mapping, Optional, Union

from . import _native

# Tokens that show how much room a token takes.
_SAMPLE = 32


def view(
    trace: _native.Trace,
    labels: Optional[Mapping[str, Any]] = None,
    height: Union[int, str] = "720px",
    max_bytes: int = 1_000_000,
    title: Optional[str] = None,
) -> Any:
    """Shows the page of a text, as Trace.html makes it, in Jupyter, marimo or another notebook that
    has anywidget (pip install "bdh_gpu[view]"). Reads the text again, at least twice.

    labels: names of neurons, as for Trace.html. height: in pixels, or as CSS has it.

    max_bytes: what a notebook may store for the widget, base64 and the page's code included. What
    does not fit is left out: times at which the state is drawn, then the full lists of single
    neurons, then the state, then the end of the text. The title says so; Trace.save_html leaves
    nothing out.
    """
    widget = _widget()
    if isinstance(height, int):
        height = f"{height}px"
    code = len(json.dumps(_native._page_script)) + len(json.dumps(_native._page_style))
    room = (max_bytes - code) // 4 * 3
    return widget(data=_fitted(trace, labels, title, room), height=height)


@functools.lru_cache(maxsize=None)
def _widget() -> Any:
    """The widget's class."""
    try:
        import anywidget
        import traitlets
    except ImportError as error:
        message = 'bdh_gpu.view needs anywidget and traitlets: pip install "bdh_gpu[view]"'
        raise ImportError(message) from error

    class View(anywidget.AnyWidget):
        _esm = _native._page_script
        _css = _native._page_style
        data = traitlets.Bytes().tag(sync=True)
        height = traitlets.Unicode().tag(sync=True)

    return View


def _fitted(trace: _native.Trace, labels: Any, title: Optional[str], room: int) -> bytes:
    """The page's data in at most `room` bytes."""
    # The title grows by what it says of the rest.
    room -= 200
    whole = len(trace.tokens)
    tokens = whole if whole <= 2 * _SAMPLE else min(whole, _tokens_for(trace, labels, title, room))
    while True:
        data, parts = _page(trace, tokens, title, labels)
        if _size(data) <= room:
            break
        if tokens == 1:
            raise ValueError("max_bytes leaves no room for one token of the text")
        tokens -= max(1, tokens // 16)
    notes = [f"the first {tokens:,} of {whole:,} tokens"] if tokens < whole else []
    without = []
    if _size(data) + _size(parts["series"]) <= room:
        data["series"] = parts["series"]
    else:
        without.append("lists of neurons")
    state = _thinned(parts["state"], room - _size(data))
    if state is not None:
        data["state"] = state
    else:
        without.append("state")
    if without:
        notes.append(f"without {' and '.join(without)}")
    if notes:
        data["title"] += f" ({', '.join(notes)})"
    return _encoded(data)


def _page(
    trace: _native.Trace, tokens: int, title: Optional[str], labels: Any
) -> tuple[dict, dict]:
    """The page's data, and the parts that can be left out of it."""
    data = json.loads(trace._page_data(tokens, title, labels))
    return data, {name: data.pop(name) for name in ("series", "state")}


def _tokens_for(trace: _native.Trace, labels: Any, title: Optional[str], room: int) -> int:
    """How many tokens there is room for, going by the first: a page of all may take minutes."""
    small, large = (_size(_page(trace, n, title, labels)[0]) for n in (_SAMPLE, 2 * _SAMPLE))
    each = max(1, (large - small) / _SAMPLE)
    return max(1, 2 * _SAMPLE + int((room - large) / each))


def _thinned(state: dict, room: int) -> Optional[dict]:
    """The state at as many of the times at which it is drawn as there is room for, the last one
    among them.
    """
    times = state["times"]["shape"][0]
    # The least that is beside the arrays.
    count = min(times, (room - 400) * times // _size(state))
    if count < 1:
        return None
    kept = [times - 1 - times * i // count for i in reversed(range(count))]
    thin = dict(state)
    for name in ("times", "cells", "maxima"):
        array = state[name]
        numbers = b64decode(array["data"])
        step = len(numbers) // times
        data = b64encode(b"".join(numbers[time * step : (time + 1) * step] for time in kept))
        thin[name] = {**array, "shape": [count, *array["shape"][1:]], "data": data.decode()}
    return thin


def _encoded(data: dict) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()


def _size(data: dict) -> int:
    return len(_encoded(data))
