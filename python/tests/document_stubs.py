"""Writes the options and docstrings of the built package into its type stubs, for editors that read only those.

    python python/tests/document_stubs.py      # with the package installed
"""

import ast
import inspect
import textwrap
from pathlib import Path

import bdh_gpu
from bdh_gpu import _native

STUBS = Path(__file__).resolve().parents[1] / "bdh_gpu" / "_native.pyi"


def docstring(text, indent):
    """A docstring's lines, at most 100 columns wide."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    lines = []
    for paragraph in paragraphs:
        lines += [*textwrap.wrap(paragraph, 100 - indent, break_on_hyphens=False), ""]
    lines[0] = '"""' + lines[0]
    body = "\n".join(lines[:-1])
    closing = '"""' if len(lines) == 2 and len(body) + indent <= 97 else "\n" + '"""'
    return textwrap.indent(body + closing, " " * indent)


def documented(source):
    """The stubs with every option, and every public class's and method's docstring."""
    lines = source.split("\n")
    edits = []
    for cls in ast.parse(source).body:
        if isinstance(cls, ast.ClassDef) and cls.name == "_Drawing":
            options = "\n".join(f"    {name}: {hint}" for name, hint in _native._keywords)
            edits.append((cls.lineno, cls.end_lineno, options, None))
        if not isinstance(cls, ast.ClassDef) or cls.name.startswith("_") or cls.name == "BDHError":
            continue
        there = getattr(bdh_gpu, cls.name)
        has_doc = ast.get_docstring(cls) is not None
        edits.append((cls.lineno, cls.body[0].end_lineno if has_doc else cls.lineno, docstring(there.__doc__, 4), None))
        for method in cls.body:
            if not isinstance(method, ast.FunctionDef) or method.name.startswith("_"):
                continue
            text = inspect.getattr_static(there, method.name).__doc__ or getattr(there, method.name).__doc__
            if not text:
                continue
            head = method.returns.end_lineno
            edits.append((head, method.end_lineno, docstring(text, 8), method.returns.end_col_offset))
    for first, last, text, column in sorted(edits, reverse=True):
        head = lines[first - 1] if column is None else lines[first - 1][:column] + ":"
        lines[first - 1 : last] = [head, *text.split("\n")]
    return "\n".join(lines)


if __name__ == "__main__":
    STUBS.write_text(documented(STUBS.read_text(encoding="utf-8")), encoding="utf-8")
