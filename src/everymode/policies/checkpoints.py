"""A policy as it was along its training: what a choice among checkpoints chooses from."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from everymode.errors import check_number
from everymode.policies.demonstrations import Demonstrations
from everymode.policies.policy import Policy
from everymode.training import Progress

__all__ = ["fit_with_checkpoints"]


def fit_with_checkpoints(
    policy: Policy,
    demonstrations: Demonstrations,
    count: int,
    *,
    folder: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> dict[str, Policy]:
    """Fit a policy in so many sittings, and return what it was after each, by the step, the finished one last.

    It ends as if it had been fitted in one: a resumed run equals an uninterrupted one.

    Args:
        policy: is fitted in place.
        demonstrations: what it learns.
        count: how many; they share the training evenly.
        folder: of the training state; a temporary one if None.
        progress: called with every report of the loop.
    """
    count = check_number("checkpoints", count, 1, 1000, integer=True)
    if folder is None:
        with TemporaryDirectory() as temporary:
            return fit_with_checkpoints(policy, demonstrations, count, folder=temporary, progress=progress)
    kept: dict[str, Policy] = {}
    done = 0.0

    def note(report: Progress) -> None:
        nonlocal done
        timed = report.seconds / policy.max_seconds if policy.max_seconds else 0.0
        done = max(report.step / report.steps, timed)
        if progress is not None:
            progress(report)

    for sitting in range(1, count + 1):
        until = sitting / count if sitting < count else float("inf")
        policy.fit(
            demonstrations,
            checkpoint_folder=folder,
            resume=sitting > 1,
            progress=note,
            interrupted=lambda until=until: done >= until,
        )
        kept[str(policy.n_steps_)] = copy.copy(policy)  # `fit` builds a new family, and leaves this one alone
        if policy.stopped_ != "interrupted":
            break
    return kept
