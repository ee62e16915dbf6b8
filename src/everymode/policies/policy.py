"""A receding-horizon policy on any family of sequences: fit to demonstrations, then act."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from everymode.errors import DataError, SettingError, check_bool, check_number
from everymode.families import Family, get_family
from everymode.inpainting import Regression
from everymode.networks import NetworkFactory, network_name
from everymode.persistence import read_model, write_model
from everymode.policies.continuity import Continuity, get_continuity
from everymode.policies.demonstrations import STATE, Demonstrations
from everymode.policies.execution import Execution
from everymode.policies.windows import action_windows, observation_windows, spaces_of, steps_of, take_windows
from everymode.randomness import PerRow, mix, new_generator, seed_of
from everymode.spaces import (
    Condition,
    DictSpace,
    LabelSpace,
    PixelSpace,
    SequenceSpace,
    Space,
    place,
    repeat_rows,
    take_rows,
)
from everymode.steering import Steering
from everymode.training import Progress, TrainingSettings, default_learning_rate, finish, resolve_device, train

__all__ = ["POLICY_FILE", "Policy", "load_policy"]

POLICY_FILE = "policy.safetensors"
_ROWS_AT_ONCE = 4096  # robots of one pass
_FEW_STEPS = 10_000  # of demonstrations, for which a shorter training does, and of most networks a smaller one
# with few steps, and with more
_WIDTHS = {
    "mlp": (256, 256),  # wider, 10 evaluations take over 10 ms of a core
    "unet": (32, 64),  # of its first level; the deepest is four times as wide, and convolutions are over five steps
}
_OTHER_WIDTHS = (128, 256)
# flow_policy on Push-T, 200 starts for choosing: .945 after 8,500 steps, .912 after 18,000, .892 after 51,000
_STEPS = (6000, 8000)
_REGRESSION = Regression(ridge=1.0, passes=3)  # of what is known of a chunk: it has many values, and little time
_SAVED = (
    "history_",
    "n_steps_",
    "stopped_",
    "fit_seconds_",
    "precision_",
    "compiled_",
    "rate_",
    "sample_seed_",
    "width_",
)
_INITIAL, _TRAINING, _SPLIT, _SAMPLE, _SETTLE = range(5)  # streams of randomness


class Policy(BaseEstimator):
    """A policy that sees the last observations, predicts the next actions, executes some of them and looks again.

    Size, steps and precision follow from the demonstrations where they are None.

    Args:
        family: a name (see `everymode.families.names()`) or a family object with settings;
            `everymode.policies.recipes` has what the field uses.
        observation_horizon: observations seen, the present one last.
        prediction_horizon: actions predicted, the first for the present step.
        execution_horizon: of these, how many are executed before the next look.
        network: a name (see `everymode.networks.names()`), or a function (event shape, embedding width) -> torch
            module; a residual MLP if None.
        width: hidden width of the network.
        depth: number of its blocks.
        steps: optimiser steps, at most.
        batch_size: windows a step.
        learning_rate: the peak; it is warmed up, then falls along a cosine.
        weight_decay: AdamW's.
        validation_fraction: share of the episodes held out to watch the run.
        early_stopping: whether they may end the run and choose its weights. The loss of a policy on held-out episodes
            rises long before the policy gets worse, so by default they are only looked at.
        patience: looks without improvement after which they do.
        max_seconds: a bound on the training time.
        precision: 'auto' (measured), 'float32' or 'bf16'.
        compile: whether steps are compiled, for long runs; 'auto' decides by their time (see `TrainingSettings`).
        continuity: how the next chunk meets the last one: 'none', 'ensemble', 'select' or 'real_time', or an object of
            `everymode.policies.continuity` with settings. May be changed once the policy is fitted, as `delay` and
            `execution_horizon` may.
        delay: control steps from an observation until the actions that were predicted for it can be executed; robots
            go on with those before it meanwhile. A clock that makes inference delays testable anywhere.
        device: 'auto', 'cpu', 'cuda', ...
        random_state: an int makes everything repeatable: same seed, same weights, same actions.

    Attributes:
        family_: the trained family. Settings of its draws may be changed: `policy.family_.set_params(steps=4)`.
        history_: one row a report: step, loss, held_out_loss.
        n_steps_: steps done. stopped_: why training ended. fit_seconds_: how long it took. precision_: what was used.
        compiled_: whether steps were compiled.
        rate_: control steps a second of the demonstrations; None where it is not known.
    """

    family_: Family
    rate_: float | None
    width_: int

    def __init__(
        self,
        family: str | Family = "flow_matching",
        *,
        observation_horizon: int = 2,
        prediction_horizon: int = 16,
        execution_horizon: int = 8,
        network: str | NetworkFactory | None = None,
        width: int | None = None,
        depth: int | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        validation_fraction: float = 0.05,
        early_stopping: bool = False,
        patience: int = 10,
        max_seconds: float | None = None,
        precision: str = "auto",
        compile: bool | str = "auto",
        continuity: str | Continuity | None = None,
        delay: int = 0,
        device: str = "auto",
        random_state: Any = None,
    ) -> None:
        self.family = family
        self.observation_horizon = observation_horizon
        self.prediction_horizon = prediction_horizon
        self.execution_horizon = execution_horizon
        self.network = network
        self.width = width
        self.depth = depth
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.validation_fraction = validation_fraction
        self.early_stopping = early_stopping
        self.patience = patience
        self.max_seconds = max_seconds
        self.precision = precision
        self.compile = compile
        self.continuity = continuity
        self.delay = delay
        self.device = device
        self.random_state = random_state

    # Fitting -------------------------------------------------------------------------------------------------------

    def fit(
        self,
        demonstrations: Demonstrations,
        *,
        checkpoint_folder: str | Path | None = None,
        resume: bool = False,
        progress: Callable[[Progress], None] | None = None,
        interrupted: Callable[[], bool] | None = None,
    ) -> Self:
        """Learn from demonstrations what is done.

        Args:
            demonstrations: episodes of observations and actions.
            checkpoint_folder: where the training state is written now and then.
            resume: whether to go on from the state in that folder.
            progress: called with every report of the loop.
            interrupted: asked after every step whether to stop.

        Raises:
            DataError: the demonstrations cannot be used; the message names the episode and step, or the shapes.
            SettingError: a setting is out of range.
            UnsupportedError: the family models no sequences.
        """
        family, seed = get_family(self.family), seed_of(self.random_state)
        self._check_horizons()
        get_continuity(self.continuity).check(self)
        demonstrations.check_finite()
        x_space, y_space = spaces_of(demonstrations, self.observation_horizon, self.prediction_horizon)
        x, y = observation_windows(demonstrations, x_space), action_windows(demonstrations, y_space)
        kept, out = self._split(demonstrations, mix(seed, _SPLIT))
        name = network_name(self._network, y_space.kind)
        many = len(kept) > _FEW_STEPS
        width = _WIDTHS.get(name, _OTHER_WIDTHS)[many] if self.width is None else self.width
        # convolutions over pictures do not bear what suits a multilayer perceptron alone
        pictures = any(isinstance(space, PixelSpace) for space in x_space.parts.values())
        usual_rate = default_learning_rate(width, None if pictures else name)
        settings = TrainingSettings.for_rows(
            len(kept),
            batch_share=family.batch_share,
            steps=_STEPS[many] if self.steps is None else self.steps,
            batch_size=max(1, round(256 * family.batch_share)) if self.batch_size is None else self.batch_size,
            learning_rate=usual_rate if self.learning_rate is None else self.learning_rate,
            weight_decay=self.weight_decay,
            patience=self.patience,
            choose=check_bool("early_stopping", self.early_stopping),
            max_seconds=self.max_seconds,
            precision=self.precision,
            compile=self.compile,
            seed=mix(seed, _TRAINING),
        )
        built = family.build(
            y_space, x_space, seed=mix(seed, _INITIAL), width=width, depth=self.depth, network=self._network
        )
        run = train(
            built,
            y[kept],
            take_windows(x, kept),
            settings=settings,
            held_out=(y[out], take_windows(x, out)) if len(out) else None,
            device=resolve_device(self.device),
            folder=checkpoint_folder,
            resume=resume,
            interrupted=interrupted or (lambda: False),
        )
        last = finish(run, progress)
        asked = place(take_windows(x, out if len(out) else kept), built.device)
        built.eval().settle(asked, seed=mix(seed, _SETTLE))
        self.family_, self.width_, self.rate_ = built, width, demonstrations.rate
        self.history_, self.n_steps_, self.stopped_ = last.history, last.step, last.finished
        self.fit_seconds_, self.precision_, self.compiled_ = last.seconds, last.precision, last.compiled
        self.sample_seed_ = mix(seed, _SAMPLE)
        self._execution: Execution | None = None
        return self

    def _check_horizons(self) -> None:
        check_number("observation_horizon", self.observation_horizon, 1, 1024, integer=True)
        check_number("prediction_horizon", self.prediction_horizon, 1, 4096, integer=True)
        check_number("execution_horizon", self.execution_horizon, 1, integer=True)
        if self.execution_horizon > self.prediction_horizon:
            raise SettingError(
                f"execution_horizon={self.execution_horizon} is more than prediction_horizon="
                f"{self.prediction_horizon}: only what is predicted can be executed."
            )

    def _split(self, demonstrations: Demonstrations, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the rows that are trained on and those of the episodes that are held out."""
        fraction = check_number("validation_fraction", self.validation_fraction, 0.0, 0.9)
        episodes = demonstrations.n_episodes
        order = torch.randperm(episodes, generator=new_generator(seed)).numpy()
        held = round(fraction * episodes)
        return steps_of(demonstrations, order[held:]), steps_of(demonstrations, order[:held])

    # Acting --------------------------------------------------------------------------------------------------------

    def act_chunk(self, observations: Mapping[str, Any] | Any, *, random_state: int | None = None) -> np.ndarray:
        """Return the next actions for observations of one or several robots; nothing is kept between two calls.

        What a robot is answered does not depend on the robots beside it.

        Args:
            observations: by name (robots, observation_horizon, *shape), oldest first; an array alone is the `state`.
                Of labels, (robots, observation_horizon), that of the present step counts.
            random_state: a seed; if None the policy's own, so that an int `random_state` repeats the actions.

        Returns:
            (robots, prediction_horizon, d), the first for the present step, in the units of the demonstrations.

        Raises:
            DataError: an observation is missing, of another shape than in `fit`, or not finite.
        """
        given = self.named(observations)
        robots = len(next(iter(given.values())))
        return self.plan(given, self.generators(robots, random_state))

    def plan(
        self,
        observations: Mapping[str, Any],
        generators: Sequence[torch.Generator],
        *,
        draws: int | None = None,
        known: np.ndarray | None = None,
        spread: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the next actions, (robots, prediction_horizon, d), each robot's with a generator of its own.

        Args:
            observations: by name (robots, observation_horizon, *shape), oldest first.
            generators: one a robot, on the CPU.
            draws: chunks for each robot; the answer is then (robots, draws, prediction_horizon, d).
            known: actions that are known, (robots, prediction_horizon, d), NaN where they are to be drawn.
            spread: how far the known ones may be off, (robots, prediction_horizon), in standard deviations of the
                actions; exact if None.

        Raises:
            UnsupportedError: actions are known, and the family cannot draw the rest given them.
        """
        x, family, each = self._encoded(observations), self.family_, 1 if draws is None else draws
        steering = None
        if known is not None:
            told: dict[str, Any] = {"resamplings": 1, "spread": spread, "regression": _REGRESSION}
            steering = Steering(family, self.action_space_, known, **told)
        parts = []
        with torch.inference_mode():
            for start in range(0, len(generators), _ROWS_AT_ONCE):
                rows = slice(start, start + _ROWS_AT_ONCE)
                embedding = repeat_rows(family.encode(place(take_rows(x, rows), family.device)), each)
                source = PerRow(tuple(generators[rows]))
                if steering is None:
                    drawn = family.draw(embedding, generator=source)
                else:
                    index = torch.arange(*rows.indices(len(generators)))
                    drawn = family.controlled(embedding, steering.control(index, each, family.device), generator=source)
                parts.append(drawn.cpu())
        chunks = self.action_space_.decode(torch.cat(parts))
        return chunks if draws is None else chunks.reshape(-1, draws, *chunks.shape[1:])

    def generators(self, robots: int, random_state: int | None = None) -> list[torch.Generator]:
        """Return the generators of so many robots, each with a stream of its own of one seed."""
        check_is_fitted(self, "family_")
        seed = self.sample_seed_ if random_state is None else int(random_state)
        return [new_generator(mix(seed, robot)) for robot in range(robots)]

    def named(self, observations: Mapping[str, Any] | Any) -> dict[str, np.ndarray]:
        """Return observations by name; an array alone is the only observation there is, or the `state`."""
        check_is_fitted(self, "family_")
        if not isinstance(observations, Mapping):
            observations = {STATE: observations}
        spaces = self.observation_spaces_
        missing = [name for name in spaces if name not in observations]
        if missing:
            held = ", ".join(map(str, observations)) or "nothing"
            raise DataError(f"the observation lacks {', '.join(missing)}; it holds {held}.")
        return {name: _read(observations[name], space) for name, space in spaces.items()}

    def _encoded(self, observations: Mapping[str, Any]) -> Condition:
        encoded = {}
        for name, space in self.observation_spaces_.items():
            values = np.asarray(observations[name])
            if values.ndim < 2 or values.shape[1] != self.observation_horizon:
                raise DataError(
                    f"observation {name!r} has shape {values.shape}: give (robots, {self.observation_horizon}, ...), "
                    "the last observations, oldest first."
                )
            if isinstance(space, LabelSpace):
                values = values[:, -1]
            elif isinstance(space, SequenceSpace):
                values = values.reshape(*values.shape[:2], -1)
            encoded[name] = space.encode(values)
        return encoded

    def start(
        self,
        robots: int = 1,
        *,
        random_state: int | None = None,
        continuity: str | Continuity | None = None,
        delay: int | None = None,
    ) -> Execution:
        """Return the execution of this policy by several robots side by side.

        Args:
            robots: how many.
            random_state: a seed; if None the policy's own. Same seed, same actions.
            continuity: in place of the policy's own.
            delay: in place of the policy's own.

        Raises:
            SettingError: a setting is out of range, or the actions would run out before the next arrive.
            UnsupportedError: the family cannot do what the continuity asks.
        """
        check_number("robots", robots, 1, integer=True)
        chosen = get_continuity(self.continuity if continuity is None else continuity)
        chosen.check(self)
        late = self.delay if delay is None else delay
        return Execution(self, self.generators(robots, random_state), continuity=chosen, delay=late)

    def act(self, observation: Mapping[str, Any] | Any) -> np.ndarray:
        """Return the next action of one robot, (d,), for its present observation; the policy keeps what it saw before.

        Args:
            observation: by name (*shape); an array alone is the `state`.
        """
        check_is_fitted(self, "family_")
        if self._execution is None:
            self._execution = self.start()
        return self._execution.act({name: values[None] for name, values in self.named(observation).items()})[0]

    def reset(self) -> None:
        """Begin a new episode for `act`."""
        check_is_fitted(self, "family_")
        if self._execution is not None:
            self._execution.reset()

    # What it is ----------------------------------------------------------------------------------------------------

    @property
    def observation_spaces_(self) -> dict[str, Space]:
        """The spaces of windows of observations, by name."""
        space = self.family_.x_space
        if not isinstance(space, DictSpace):
            raise DataError("a policy's observations have names.")
        return dict(space.parts)

    @property
    def action_space_(self) -> SequenceSpace:
        """The space of windows of actions."""
        space = self.family_.y_space
        if not isinstance(space, SequenceSpace):
            raise DataError("a policy's actions are sequences.")
        return space

    @property
    def action_scale_(self) -> np.ndarray:
        """Standard deviation of each value of the actions, (d,); of an angle one radian."""
        space = self.action_space_
        scale = np.ones(self.n_actions_)
        others = np.setdiff1d(np.arange(len(scale)), space.angles)
        scale[others] = space.scale[: len(others)]
        return scale

    @property
    def action_angles_(self) -> tuple[int, ...]:
        """Which values of an action are angles, in radians."""
        return tuple(self.action_space_.angles)

    def describe(self) -> dict[str, Any]:
        """Return what the policy sees and does, JSON-ready: what a server tells its robots."""
        check_is_fitted(self, "family_")
        return {
            "family": self.family_.name,
            "observation_horizon": self.observation_horizon,
            "prediction_horizon": self.prediction_horizon,
            "execution_horizon": self.execution_horizon,
            "observations": {name: space.to_dict() for name, space in self.observation_spaces_.items()},
            "actions": self.n_actions_,
            "rate": self.rate_,
            "nfe": self.nfe,
        }

    @property
    def n_actions_(self) -> int:
        """Number of values of one action."""
        return self.action_space_.given_shape[1]

    @property
    def nfe(self) -> int:
        """Network evaluations for one chunk."""
        return get_family(getattr(self, "family_", self.family)).nfe

    @property
    def n_parameters_(self) -> int:
        """Number of trained parameters."""
        check_is_fitted(self, "family_")
        return self.family_.parameter_count

    # Files ---------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write the policy to a .safetensors file, whole or not at all; `load_policy` reads it.

        Raises:
            FileError: it cannot be written; an older file of that name survives.
        """
        check_is_fitted(self, "family_")
        left_out = ("family", "network", "random_state")
        params = {name: value for name, value in self.get_params(deep=False).items() if name not in left_out}
        header = {
            "policy": {**params, "continuity": get_continuity(self.continuity).to_dict(), "random_state": None},
            "fitted": {name: getattr(self, name, None) for name in _SAVED},
        }
        sizes: dict[str, Any] = {"width": self.width_, "depth": self.depth, "network": self._network}
        return write_model(path, self.family_, header, kind="policy", **sizes)

    @property
    def _network(self) -> str | NetworkFactory | None:
        """What stands for the network where none is given."""
        named = get_family(self.family).abilities.networks
        return "mlp" if self.network is None and (named is None or "mlp" in named) else self.network

    @staticmethod
    def load(path: str | Path, *, device: str = "auto", network: NetworkFactory | None = None) -> Policy:
        """Return the fitted policy that `save` wrote; see `load_policy`."""
        return load_policy(path, device=device, network=network)


def _read(values: Any, space: Space) -> np.ndarray:
    """Return an observation as an array whose dtype holds whatever comes later, too."""
    array = np.asarray(values)
    if isinstance(space, LabelSpace):
        return array.astype(object)
    return array.astype(np.float64) if isinstance(space, SequenceSpace) and array.dtype.kind in "iufb" else array


def load_policy(path: str | Path, *, device: str = "auto", network: NetworkFactory | None = None) -> Policy:
    """Return the fitted policy that `Policy.save` wrote.

    Args:
        path: the .safetensors file, or a run folder that holds `policy.safetensors`.
        device: where the policy goes.
        network: the factory of a policy that was trained with a network of your own.

    Raises:
        CheckpointError: the file is absent, damaged, truncated or foreign, or needs `network`.
    """
    built, header = read_model(path, network=network, kind="policy")
    settings = type(built)(**built.get_params())
    given = {**header["policy"], "continuity": get_continuity(header["policy"].get("continuity")), "device": device}
    policy = Policy(settings, network=header["network"], **given)
    for name, value in header["fitted"].items():
        setattr(policy, name, value)
    policy.family_, policy._execution = built.to(resolve_device(device)), None
    return policy
