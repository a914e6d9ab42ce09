"""Models that the tests share. All run on the CPU backend, which every machine has."""

from pathlib import Path

import pytest

from bdh_gpu import BDH

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def model():
    return BDH.embedded(device="cpu")
