"""What tests of moving robots share."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def drive():
    """Head for each target until it is reached or the episode ends; return the last answer of `step`."""

    def through(environment, targets):
        answer = None
        for target in targets:
            while np.hypot(*(way := np.asarray(target) - environment.position)) > 1e-9:
                answer = environment.step(way * min(environment.rate, 0.6 / np.hypot(*way)))
                if answer[2] or answer[3]:
                    return answer
        return answer

    return through
