"""An honest evaluation of a policy: fresh starts, intervals, the cost of a chunk, and behaviour beside the score.

What a policy is chosen on is never what it is reported on: `choose` among checkpoints uses the block of seeds "choose",
and `evaluate` reports on the block "report". The score that the chosen one had while it was chosen is the highest of
several, and so too high; it is kept as `best_of_checkpoints`, to show by how much.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from everymode.errors import CheckpointError, DataError, check_number
from everymode.files import write_json
from everymode.metrics import Measure, bootstrap_interval, wilson_interval
from everymode.policies.behaviour import Behaviour, count_ways
from everymode.policies.demonstrations import Demonstrations
from everymode.policies.episodes import Episode, Rollouts
from everymode.policies.rollouts import Actor, Make, block, maker, named, roll_out

__all__ = ["EVALUATION_FILE", "Choice", "Evaluation", "choose", "chunk_milliseconds", "evaluate"]

EVALUATION_FILE = "evaluation.json"
_EPISODES_FILE = "episodes.npz"
_CALLS, _WARM_UP = 60, 5
_RUNNING = ("execution_horizon", "delay")  # how a policy was run
_MEASURES = ("score", "final", "success", "collided")
_OF_EPISODES = ("reached", "failures")  # said for whoever reads the file, and known from the episodes


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a policy is worth, on starts that nothing was chosen on.

    Attributes:
        settings: environment, seeds, episodes: what was asked for, JSON-ready.
        score: mean over episodes of the highest reward, with a bootstrap interval.
        final: mean of the last reward, the same.
        success: share of the episodes in which the task was done, with Wilson's interval.
        collided: share in which something was touched that must not be; None where that has no meaning.
        behaviour: of all episodes. of_successes: of those in which the task was done.
        chunk_ms_median, chunk_ms_p95: wall time of one chunk for one robot on one thread.
        nfe: network evaluations a chunk. parameters: fitted numbers. train_seconds: of training. None if not known.
        best_of_checkpoints: the score of the chosen checkpoint while it was chosen; None if none was.
        rollouts: the episodes.
    """

    settings: dict[str, Any]
    score: Measure
    final: Measure
    success: Measure
    collided: Measure | None
    behaviour: Behaviour
    of_successes: Behaviour
    chunk_ms_median: float
    chunk_ms_p95: float
    nfe: int | None
    parameters: int | None
    train_seconds: float | None
    rollouts: Rollouts
    best_of_checkpoints: float | None = None

    @property
    def title(self) -> str:
        """One line."""
        failed = len(self.rollouts.failures)
        told = f", {failed} more crashed" if failed else ""
        return f"{self.settings['environment']}: {self.score.n} episodes from seed {self.settings['first_seed']}{told}"

    @property
    def reached(self) -> dict[str, Measure]:
        """Share of the episodes in which so many parts of the task were done at once, `p1` and on; none of one part."""
        goals, best = self.rollouts.goals, [episode.best for episode in self.rollouts.whole]
        asked = range(1, goals + 1) if goals > 1 else ()
        return {f"p{done}": _share_of([value > (done - 0.5) / goals for value in best]) for done in asked}

    def shown(self) -> list[dict[str, str]]:
        """Return the numbers as short texts: what, of all episodes, and of the successful ones."""
        rows = [("score (best)", _text(self.score), "-"), ("score (final)", _text(self.final), "-")]
        rows += [("success", _percent(self.success), "-")]
        rows += [(name, _percent(share), "-") for name, share in self.reached.items()]
        rows += [("collided", _percent(self.collided), "-")] if self.collided is not None else []
        if self.best_of_checkpoints is not None:
            rows += [("best of checkpoints (chosen on it)", f"{self.best_of_checkpoints:.3f}", "-")]
        both = (self.behaviour, self.of_successes)
        if self.behaviour.ways:
            rows += [("ways taken", *(f"{each.ways_taken} of {len(each.ways)}" for each in both))]
            rows += [("entropy of ways (nats)", *(_beside(each.entropy) for each in both))]
            rows += [("of the demonstrators'", *(_share(each.entropy_share) for each in both))]
            rows += [("way recall", *(_percent(each.recall) for each in both))]
            rows += [("commitment", *(_percent(each.commitment) for each in both))]
        rows += [("jerk", *(_text(each.jerk, ".3g") for each in both))]
        rows += [("jump at seams / within chunks", *(_jumps(each) for each in both))]
        rows += [("ms a chunk, median / 95 %", f"{self.chunk_ms_median:.2f} / {self.chunk_ms_p95:.2f}", "-")]
        known = (("NFE", self.nfe, ","), ("parameters", self.parameters, ","), ("train s", self.train_seconds, ".0f"))
        rows += [(name, format(value, form), "-") for name, value, form in known if value is not None]
        return [dict(zip(("", "all episodes", "successful ones"), row, strict=True)) for row in rows]

    def __str__(self) -> str:
        shown = self.shown()
        widths = {key: max(len(key), *(len(row[key]) for row in shown)) for key in shown[0]}
        lines = [self.title, "  ".join(key.ljust(width) for key, width in widths.items())]
        lines += ["  ".join(row[key].ljust(width) for key, width in widths.items()).rstrip() for row in shown]
        return "\n".join(lines)

    __repr__ = __str__

    def to_dict(self) -> dict[str, Any]:
        """Return all but the episodes, JSON-ready; of those that crashed, the seed and the error."""
        simple = ("settings", "chunk_ms_median", "chunk_ms_p95", "nfe", "parameters", "train_seconds")
        described = {name: getattr(self, name) for name in (*simple, "best_of_checkpoints")}
        described |= {name: None if (m := getattr(self, name)) is None else m.to_dict() for name in _MEASURES}
        described |= {name: getattr(self, name).to_dict() for name in ("behaviour", "of_successes")}
        described["reached"] = {name: share.to_dict() for name, share in self.reached.items()}
        return {**described, "failures": [[episode.seed, episode.error] for episode in self.rollouts.failures]}

    def save(self, folder: str | Path) -> Path:
        """Write evaluation.json and the episodes into a folder; `Evaluation.load` reads them."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.rollouts.save(folder / _EPISODES_FILE)
        return write_json(folder / EVALUATION_FILE, self.to_dict())

    @classmethod
    def load(cls, folder: str | Path) -> Evaluation:
        """Return the evaluation that `save` wrote.

        Raises:
            CheckpointError: there is none, or it is damaged.
        """
        folder = Path(folder)
        if not (folder / EVALUATION_FILE).is_file():
            raise CheckpointError(f"{folder} holds no {EVALUATION_FILE}; `everymode policy eval` writes one.")
        try:
            known = json.loads((folder / EVALUATION_FILE).read_text())
            for name in _OF_EPISODES:
                known.pop(name, None)
            for name in _MEASURES:
                known[name] = None if known[name] is None else Measure(**known[name])
            for name in ("behaviour", "of_successes"):
                known[name] = Behaviour.from_dict(known[name])
            return cls(**known, rollouts=Rollouts.load(folder / _EPISODES_FILE))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"the evaluation in {folder} is damaged: {error}") from error


def evaluate(
    policy: Actor,
    environment: str | Make,
    episodes: int = 500,
    seed_block: str = "report",
    *,
    robots: int = 32,
    jobs: int = 1,
    settings: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    demonstrations: Demonstrations | None = None,
    best_of_checkpoints: float | None = None,
    random_state: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Return what a policy is worth.

    Episodes in which the environment crashed are told, and left out of all numbers.

    Args:
        policy: fitted.
        environment: a name of `everymode.policies.environments`, or a function that makes one.
        episodes: how many starts, the first of the block.
        seed_block: "report", or "choose" for what something is chosen by.
        robots: environments side by side.
        jobs: processes.
        settings: of the environment.
        options: for its `reset`, such as {"symmetric": True}.
        demonstrations: what it learned from, for the ways that it should take; if None or if they tell no ways, those
            of the environment's own demonstrator.
        best_of_checkpoints: see `choose`.
        random_state: of the policy's draws and of the bootstraps.
        progress: told how many episodes are over, and of how many.

    Raises:
        SettingError: a setting is out of range.
        DataError: every episode crashed; the message holds the first error.
    """
    seeds, chosen = block(seed_block, episodes), dict(settings or {})
    rollouts = roll_out(
        policy,
        environment,
        seeds,
        robots=robots,
        jobs=jobs,
        settings=chosen,
        options=options,
        random_state=random_state,
        progress=progress,
    )
    whole = rollouts.whole
    if not whole:
        raise DataError(f"every episode of {rollouts.environment} crashed: {rollouts.failures[0].error}.")
    make = maker(environment, **chosen)
    shown = _demonstrated(make, demonstrations)
    spent = chunk_milliseconds(policy, make)

    def behaviour(of: Sequence[Episode]) -> Behaviour:
        angles = getattr(policy, "action_angles_", ())  # a policy of one's own need not know
        return Behaviour.of(of, rollouts.way_names, shown, rollouts.rate, random_state, angles)

    return Evaluation(
        {
            "environment": rollouts.environment,
            "settings": chosen,
            "options": None if options is None else dict(options),
            "seed_block": seed_block,
            "first_seed": seeds[0],
            "episodes": len(seeds),
            "robots": robots,
            "random_state": random_state,
            **{name: value for name in _RUNNING if (value := getattr(policy, name, None)) is not None},
            "threads": torch.get_num_threads(),
        },
        _mean([episode.best for episode in whole], random_state),
        _mean([episode.final for episode in whole], random_state),
        _share_of([episode.success for episode in whole]),
        _share_of(told) if (told := [e.collided for e in whole if e.collided is not None]) else None,
        behaviour(whole),
        behaviour([episode for episode in whole if episode.success]),
        float(np.median(spent)),
        float(np.quantile(spent, 0.95)),
        getattr(policy, "nfe", None),
        getattr(policy, "n_parameters_", None),
        getattr(policy, "fit_seconds_", None),
        rollouts,
        best_of_checkpoints,
    )


def chunk_milliseconds(policy: Actor, make: Make, *, calls: int = _CALLS) -> np.ndarray:
    """Return the wall time of single plans of one robot on one thread, in milliseconds, (calls,).

    What a plan costs beside the first chunk of an episode, such as going on from the last one, is in it.
    """
    env = make()
    try:
        seen, _ = env.reset(seed=0)
    finally:
        env.close()
    now = {name: np.asarray(values)[None] for name, values in named(seen).items()}
    running = policy.start(1, random_state=0)
    with _one_thread():
        while len(running.seconds) < calls + _WARM_UP:
            running.act(now)
    return 1000 * np.asarray(running.seconds[_WARM_UP:])


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # what is told is the time of one core; the caller's threads come back
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _demonstrated(make: Make, demonstrations: Demonstrations | None) -> np.ndarray | None:
    """Return how often the demonstrators take each way; None where it is not known."""
    if demonstrations is not None and demonstrations.ways is not None:
        return count_ways(demonstrations.ways, demonstrations.way_names)
    env = make()
    try:
        weights = getattr(env.unwrapped, "way_weights", None)
    finally:
        env.close()
    return None if weights is None else np.asarray(weights, dtype=np.float64)


@dataclass(frozen=True)
class Choice:
    """Which of several checkpoints is taken.

    Attributes:
        name: of the best one. score: its mean score on the block "choose"; the highest of several, so too high.
        scores: of all, by name.
    """

    name: str
    score: float
    scores: dict[str, float]


def choose(
    checkpoints: Mapping[str, Actor],
    environment: str | Make,
    episodes: int = 50,
    *,
    robots: int = 32,
    settings: Mapping[str, Any] | None = None,
    random_state: int = 0,
) -> Choice:
    """Return the checkpoint with the highest mean score on the seeds that are for choosing; of equals the last.

    Args:
        checkpoints: policies by name, at least one, in the order of training.
        environment: see `evaluate`.
        episodes: starts of the block "choose".
        robots: environments side by side.
        settings: of the environment.
        random_state: of the draws.
    """
    check_number("checkpoints", len(checkpoints), 1)
    seeds, scores = block("choose", episodes), {}
    for name, policy in checkpoints.items():
        found = roll_out(policy, environment, seeds, robots=robots, settings=settings, random_state=random_state).whole
        scores[name] = float(np.mean([episode.best for episode in found])) if found else 0.0
    best = max(reversed(scores), key=scores.__getitem__)
    return Choice(best, scores[best], scores)


def _mean(values: Sequence[float], seed: int) -> Measure:
    return Measure(float(np.mean(values)), *bootstrap_interval(values, seed), None, len(values))


def _share_of(values: Sequence[bool]) -> Measure:
    return Measure(sum(values) / len(values), *wilson_interval(sum(values), len(values)), None, len(values))


def _text(measure: Measure | None, form: str = ".3f") -> str:
    if measure is None:
        return "-"
    ends = "" if measure.low is None else f" ({measure.low:{form}} to {measure.high:{form}})"
    return f"{measure.value:{form}}{ends}"


def _percent(measure: Measure | None) -> str:
    if measure is None:
        return "-"
    hundred = replace(
        measure, **{n: None if (v := getattr(measure, n)) is None else 100 * v for n in ("value", "low", "high")}
    )
    return _text(hundred, ".1f").replace(" (", " % (") if measure.low is not None else f"{hundred.value:.1f} %"


def _beside(measure: Measure | None) -> str:
    floor = "" if measure is None or measure.floor is None else f", demonstrators {measure.floor:.3f}"
    return _text(measure) + floor


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _jumps(behaviour: Behaviour) -> str:
    both = (behaviour.seam_jump, behaviour.inner_jump)
    return " / ".join("-" if value is None else f"{value:.3g}" for value in both)
