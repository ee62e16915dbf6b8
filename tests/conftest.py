"""What all tests share: no test may leave a trace in global state, and where the real data are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    """Tests are small and run side by side: threads of their own would only be in each other's way."""
    torch.set_num_threads(1)


def _global_state() -> dict[str, Any]:
    kind, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002 - it is what is watched
    return {
        "torch's random state": torch.get_rng_state().numpy().tobytes(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's thread count": torch.get_num_threads(),
        "NumPy's random state": (kind, np.asarray(keys).tobytes(), position, has_gauss, gauss),
    }


def _refuse_leaks(before: dict[str, Any], what: str) -> None:
    after = _global_state()
    leaks = [name for name, value in before.items() if value != after[name]]
    if leaks:
        pytest.fail(f"{what} changed {' and '.join(leaks)}; draw from a generator of your own.", pytrace=False)


@pytest.fixture(autouse=True)
def no_global_state_leaks(request):
    """Fail a test that leaves global state other than it found it."""
    before = _global_state()
    yield
    _refuse_leaks(before, request.node.name)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef, request):
    """Fixtures of a module or a session are set up outside the fixture above: watch each of them by itself."""
    before = _global_state()
    result = yield
    _refuse_leaks(before, f"fixture {fixturedef.argname!r}")
    return result


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of the real data sets; a test that asks for it is skipped where there is none."""
    folder = Path(os.environ.get("EVERYMODE_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no data at {folder}: set EVERYMODE_DATA to the folder of the real data sets")
    return folder
