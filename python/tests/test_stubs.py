"""The type stubs describe the package as it is."""

import ast
from pathlib import Path

import bdh_gpu
import document_stubs
import numpy as np
import pytest
from bdh_gpu import _native


def test_the_stubs_name_what_there_is():
    tree = ast.parse(Path(_native.__file__).with_name("_native.pyi").read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    public = {name for name in classes if not name.startswith("_")}
    assert public | {"__version__"} == set(bdh_gpu.__all__)
    for name in public - {"BDHError"}:
        declared = {node.name for node in classes[name].body if isinstance(node, ast.FunctionDef)}
        there = {attribute for attribute in vars(getattr(bdh_gpu, name)) if not attribute.startswith("_")}
        assert {method for method in declared if not method.startswith("_")} == there, name


def test_the_stubs_options_are_accepted(model):
    tree = ast.parse(Path(_native.__file__).with_name("_native.pyi").read_text(encoding="utf-8"))
    options = {
        node.name: {line.target.id for line in node.body if isinstance(line, ast.AnnAssign)}
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name in ("_Drawing", "_Context", "_One", "_Complete")
    }
    everything = set().union(*options.values())
    assert len(everything) >= 21
    model.generate_batch(["A"], max_new_tokens=1, **dict.fromkeys(everything))


def test_the_package_is_typed():
    assert Path(bdh_gpu.__file__).with_name("py.typed").exists()


def test_the_stubs_have_the_packages_options_and_docstrings():
    source = document_stubs.STUBS.read_text(encoding="utf-8")
    assert document_stubs.documented(source) == source, "run python/tests/document_stubs.py"
    assert '"""' in source


def test_a_dtype_is_another_name_for_the_weights(root):
    path = root / "models" / "bdh-shakespeare"
    for dtype, weights in [("float16", "f16"), (np.float32, "f32"), (np.dtype("float32"), "f32")]:
        assert bdh_gpu.BDH.from_pretrained(path, device="cpu", dtype=dtype).weights == weights
    with pytest.raises(ValueError, match="dtype is int8"):
        bdh_gpu.BDH.from_pretrained(path, device="cpu", dtype="int8")
    with pytest.raises(ValueError, match="not both"):
        bdh_gpu.BDH.from_pretrained(path, device="cpu", dtype="float16", weights="f32")
