#!/usr/bin/env python3
"""Records docs/session.svg: runs the program and draws its terminal as an animated SVG.

    docs/recording/make.py [PROGRAM]          (default: target/release/bdh-gpu)

Seeds are fixed, so the texts are the same on every run. The pace is not the program's: lines are
typed, and texts appear, at a speed that a person can follow. Linux or macOS; only the standard
library is needed.
"""

import fcntl
import os
import pty
import select
import struct
import sys
import tempfile
import termios
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[2]

# Lines typed at the shell, each with the lines typed at the program's own prompt.
SESSION = [
    ("bdh-gpu generate --prompt JULIET: --seed 14 --stop $'\\n\\n'", []),
    ("bdh-gpu interactive --seed 23", ["O Romeo, ", "/retry", "quit"]),
    ('bdh-gpu score --text "The king is dead."', []),
]

COLUMNS, FONT, ADVANCE, LINE, PAD = 80, 14, 8.4, 19, 16  # the last four in pixels
TYPING, TEXT = 18, 75  # characters per second
PAUSE, HOLD = 0.7, 6.0  # seconds before a line is typed, and at the end
TIMEOUT = 120  # seconds without output

SHELL, LOOP = "$ ", "> "


def run(line, answers, folder):
    """Runs a line in a pseudo-terminal; returns what the terminal shows.

    A dumb terminal gets no escape sequences: its output is the text, and typed lines are echoed.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="dumb", NO_COLOR="1", XDG_STATE_HOME=folder, XDG_RUNTIME_DIR=folder)
        os.environ["PATH"] = folder + os.pathsep + os.environ["PATH"]
        os.execvp("bash", ["bash", "-c", line])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    shown, answers = b"", list(answers)
    while True:
        if not select.select([terminal], [], [], TIMEOUT)[0]:
            sys.exit(f"error: {line}: no output within {TIMEOUT} s, after {shown.decode()!r}")
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # Linux reports the end of a pseudo-terminal as an error.
            piece = b""
        if not piece:
            break
        shown += piece
        if answers and shown.endswith(b"\n" + LOOP.encode()):
            os.write(terminal, answers.pop(0).encode() + b"\n")
    if status := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        sys.exit(f"error: {line}: exit code {status}, {shown.decode()!r}")
    return shown.decode().replace("\r\n", "\n")


def rows(session, folder):
    """The terminal's rows: (kind, prompt, text), where kind is typed, notice or text."""
    for line, answers in session:
        yield "typed", SHELL, line
        notices = 3 if answers else 1
        for number, text in enumerate(run(line, answers, folder).rstrip("\n").split("\n")):
            if answers and text.startswith(LOOP):
                yield "typed", LOOP, text[len(LOOP) :]
            else:
                for start in range(0, max(len(text), 1), COLUMNS):
                    yield ("notice" if number < notices else "text"), "", text[start : start + COLUMNS]


class Drawing:
    """Elements of the SVG, and the keyframes that show each of them in time."""

    def __init__(self):
        self.elements, self.animations, self.time = [], [], 0.0

    def animate(self, kind, frames):
        """Names an animation of (time, declarations) frames; its class is `kind` and the name."""
        self.animations.append((f"k{len(self.animations)}", frames))
        return f"{kind} {self.animations[-1][0]}"

    def text(self, x, y, style, text, shown_at):
        if not text.strip():
            return
        width = len(text) * ADVANCE
        names = f"{style} {self.animate('a', [(0, 'opacity:0'), (shown_at, 'opacity:1')])}"
        self.elements.append(
            f'<text class="{names}" x="{x:g}" y="{y + FONT:g}" textLength="{width:g}">{escape(text)}</text>'
        )

    def cover(self, x, y, text, start, end):
        """A patch over the text that shrinks to its right, character by character."""
        frames = [
            (0, "transform:scaleX(1)"),
            (start, f"transform:scaleX(1);animation-timing-function:steps({len(text)})"),
            (end, "transform:scaleX(0)"),
        ]
        self.elements.append(
            f'<rect class="c {self.animate("a", frames)}" x="{x:g}" y="{y:g}" '
            f'width="{len(text) * ADVANCE:g}" height="{LINE}"/>'
        )

    def cursor(self, x, y, text, shown_at, start, end):
        distance = f"transform:translateX({len(text) * ADVANCE:g}px)"
        frames = [
            (0, "opacity:0;transform:none"),
            (shown_at, "opacity:1;transform:none"),
            (start, f"opacity:1;transform:none;animation-timing-function:steps({max(len(text), 1)})"),
            (end, f"opacity:1;{distance}"),
            (end + PAUSE / 2, f"opacity:0;{distance}"),
        ]
        self.elements.append(
            f'<rect class="u {self.animate("a", frames)}" x="{x:g}" y="{y + 1:g}" '
            f'width="{ADVANCE:g}" height="{LINE - 2}"/>'
        )

    def row(self, number, kind, prompt, text):
        x, y = PAD, PAD + number * LINE
        if kind == "typed":
            self.text(x, y, "p", prompt, self.time)
            x += len(prompt) * ADVANCE
            start = self.time + PAUSE
            end = start + len(text) / TYPING
            self.text(x, y, "t", text, start)
            if text:
                self.cover(x, y, text, start, end)
            self.cursor(x, y, text, self.time, start, end)
            self.time = end + PAUSE / 2
        elif kind == "notice":
            self.text(x, y, "n", text, self.time)
        else:
            end = self.time + len(text) / TEXT
            self.text(x, y, "o", text, self.time)
            if text:
                self.cover(x, y, text, self.time, end)
            self.time = end

    def svg(self, count):
        duration = self.time + HOLD
        width, height = COLUMNS * ADVANCE + 2 * PAD, count * LINE + 2 * PAD

        def keyframes(name, frames):
            # A value holds until the next frame, unless it says in how many steps it changes.
            points = []
            for index, (time, values) in enumerate(frames):
                stepped = "steps" in values or index + 1 == len(frames)
                values += "" if stepped else ";animation-timing-function:step-end"
                points.append(f"{100 * time / duration:.4g}%{{{values}}}")
            last = frames[-1][1]
            return f"@keyframes {name}{{{''.join(points)}to{{{last}}}}}.{name}{{animation-name:{name}}}"

        style = f"""
text{{font:{FONT}px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;white-space:pre}}
.w{{fill:#16181d;stroke:#454b57}}.c{{fill:#16181d;transform:scaleX(0);transform-box:fill-box;transform-origin:100% 50%}}
.u{{fill:#d7dae0;opacity:0}}.p{{fill:#7fb4ff}}.t{{fill:#fff;font-weight:600}}.n{{fill:#99a1ae}}.o{{fill:#d7dae0}}
.a{{animation-duration:{duration:.4g}s;animation-iteration-count:infinite}}
@media (prefers-reduced-motion:reduce){{.a{{animation:none!important}}}}
"""
        style += "\n".join(keyframes(name, frames) for name, frames in self.animations)
        body = "\n".join(self.elements)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
            f'height="{height:g}" role="img" xml:space="preserve">\n'
            "<title>A terminal session: generate, interactive and score</title>\n"
            f"<style>{style}\n</style>\n"
            f'<rect class="w" x=".5" y=".5" width="{width - 1:g}" height="{height - 1:g}" rx="8"/>\n'
            f"{body}\n</svg>\n"
        )


def main():
    program = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "target/release/bdh-gpu").resolve()
    if not program.is_file():
        sys.exit(f"error: there is no {program}; build it with cargo build --release, or name another program")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bdh-gpu").symlink_to(program)
        screen = list(rows(SESSION, folder))
    drawing = Drawing()
    for number, row in enumerate(screen):
        drawing.row(number, *row)
    (ROOT / "docs/session.svg").write_text(drawing.svg(len(screen)), encoding="utf-8")
    for _, prompt, text in screen:
        print(prompt + text)


if __name__ == "__main__":
    main()
