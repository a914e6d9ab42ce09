"""Runs the first example of the Python package's README, on the CPU: quick_start.py README"""

import re
import sys
from importlib.metadata import version
from pathlib import Path

import bdh_gpu

readme = Path(sys.argv[1]).read_text(encoding="utf-8")
example = re.search(r"```python\n(.*?)```", readme, re.DOTALL).group(1)
example, count = re.subn(r"BDH\.embedded\(\)", 'BDH.embedded(device="cpu")', example)
assert count == 1, f"the first example of {sys.argv[1]} loads {count} models by BDH.embedded(), expected 1"
exec(compile(example, sys.argv[1], "exec"), {})
print(f"\nbdh_gpu {version('bdh-gpu')} from {Path(bdh_gpu.__file__).parent}: the quick start has run")
