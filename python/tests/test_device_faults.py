"""A device that fails in the midst of a conversation. A Vulkan layer lets the driver fail (tests/vulkan-faults)."""

import json
import os
import subprocess
import sys

import pytest

LIBRARY = os.environ.get("BDH_GPU_FAULTS", "")

pytestmark = pytest.mark.skipif(
    not LIBRARY, reason="BDH_GPU_FAULTS is not set: python/test.sh builds the layer, on Linux"
)

# The prompt and some bursts work; then the device is lost.
CODE = """
import os, sys, warnings
from pathlib import Path
from bdh_gpu import BDH

plan = Path(os.environ["VULKAN_FAULTS"])

def text(device, lose):
    session = BDH.embedded(device=device).session()
    session.feed("KING:")
    pieces = []
    for piece in session.generate_stream(200, seed=1):
        pieces.append(piece)
        if lose and len(pieces) == 3:
            new = plan.with_suffix(".new")
            new.write_text("vkWait -4 from 0")
            new.rename(plan)
    pieces.append(session.generate_text(20, seed=2))
    return "".join(pieces), session

expected, _ = text("cpu", False)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    got, session = text("gpu", True)
assert got == expected, (got, expected)
assert session.device.startswith("CPU (") and session.position == 225, session.device
messages = [str(warning.message) for warning in caught]
assert len(messages) == 1 and "was lost" in messages[0] and "goes on on CPU" in messages[0], messages
assert caught[0].category is RuntimeWarning
"""


def test_a_stream_outlives_its_device(tmp_path):
    layer = {
        "name": "VK_LAYER_TEST_faults", "type": "GLOBAL", "library_path": LIBRARY, "api_version": "1.3.0",
        "implementation_version": "1", "description": "for tests",
    }
    (tmp_path / "layer.json").write_text(json.dumps({"file_format_version": "1.1.2", "layer": layer}))
    (tmp_path / "plan").write_text("")
    environment = {
        **os.environ, "VK_LAYER_PATH": str(tmp_path), "VK_INSTANCE_LAYERS": layer["name"],
        "VULKAN_FAULTS": str(tmp_path / "plan"),
    }
    run = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
