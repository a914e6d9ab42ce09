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
    # The rest of the package is Python and has its types in its own files.
    written_here = {"Contribution", "Firing", "Source", "view"}
    assert public | {"__version__"} | written_here == set(bdh_gpu.__all__)
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
    for dtype, weights in [("float16", "f16"), (np.float32, "f32"), (np.dtype("float32"), "f32"), ("int8", "int8")]:
        assert bdh_gpu.BDH.from_pretrained(path, device="cpu", dtype=dtype).weights == weights
    with pytest.raises(ValueError, match="dtype is int4"):
        bdh_gpu.BDH.from_pretrained(path, device="cpu", dtype="int4")
    with pytest.raises(ValueError, match="not both"):
        bdh_gpu.BDH.from_pretrained(path, device="cpu", dtype="float16", weights="f32")


def test_states_and_weights_take_fewer_bytes():
    exact = bdh_gpu.BDH.embedded(device="cpu")
    assert exact.state_dtype == "f32"
    for dtype, name in [("int16", "i16"), (np.int8, "i8"), ("float32", "f32")]:
        small = bdh_gpu.BDH.embedded(device="cpu", weights="int8", state_dtype=dtype)
        assert (small.state_dtype, small.weights) == (name, "int8")
        assert len(small.generate_text("KING:", 20, seed=1)) == 25
    assert bdh_gpu.BDH.embedded(device="cpu", state_dtype="int16").score("To be or not to be").total == pytest.approx(
        exact.score("To be or not to be").total, abs=1e-3
    )
    with pytest.raises(ValueError, match="state_dtype is int4: expected float32, int16 or int8"):
        bdh_gpu.BDH.embedded(device="cpu", state_dtype="int4")
