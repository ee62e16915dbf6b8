"""The scikit-learn face: fit, sample, predict, score, save and load."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Self, overload

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from everymode.errors import (
    DataError,
    UnsupportedError,
    ValleyWarning,
    check_bool,
    check_number,
)
from everymode.families import Family, get_family
from everymode.inputs import (
    count_of,
    encode_condition,
    encode_target,
    fit_condition,
    read_known,
    read_target,
    row_titles,
)
from everymode.metrics import energy_scores
from everymode.modes import Answers, RowAnswers, answers_among, in_a_valley, most_probable, spread_out
from everymode.networks import NetworkFactory, network_name
from everymode.persistence import read_model, write_model
from everymode.randomness import Common, mix, new_generator, seed_of
from everymode.regions import check_level, highest_density_intervals
from everymode.spaces import ArraySpace, Condition, Space, count_rows, place, repeat_rows, take_rows
from everymode.steering import Steering, able, read_guides
from everymode.tables import as_numbers
from everymode.training import (
    Progress,
    TrainingSettings,
    default_learning_rate,
    default_width,
    finish,
    resolve_device,
    train,
)

__all__ = ["OneToManyRegressor", "load"]

_NETWORK_ROWS = 16_384  # rows x draws of one pass while sampling
_ALONE = 256  # draws of one x from which on a CPU takes each x by itself: networks work on what is of x once
_STEERED_ROWS = 4096  # the same where gradients of the network are held
_PREDICT_ROWS = 1024
_PREDICT_DRAWS = 128
_MOST_NEGATIVE = 700.0  # exponent of a score
_MOST_DISTINCT = 1024
_ROWS_AT_ONCE = 256  # whose draws are held while their modes are looked for
_JUDGED_MEANS, _JUDGED_DRAWS = 16, 512  # rows and draws by which a mean is found to lie in a valley
_SAVED = (
    "n_features_in_",
    "history_",
    "n_steps_",
    "stopped_",
    "fit_seconds_",
    "precision_",
    "compiled_",
    "sample_seed_",
    "width_",
)
_INITIAL, _TRAINING, _SPLIT, _SAMPLE, _PREDICT, _SETTLE = range(6)  # streams of randomness


class OneToManyRegressor(RegressorMixin, BaseEstimator):
    """A model of p(y | x) with the manners of a scikit-learn regressor.

    Size, steps and precision follow from the data where they are None, and held-out rows stop the run early.

    Args:
        family: a name (see `everymode.families.names()`) or a family object with settings.
        width: hidden width of the network.
        depth: number of blocks of the network.
        network: the name of a network, see `everymode.networks.names()`; or a function (event shape, embedding width)
            -> torch module that makes one of your own. What suits Y if None.
        exchangeable: whether the points of each x, (rows, points, d), stand in no order, as measurements repeated do:
            the model then answers alike in whatever order they come.
        steps: optimiser steps, at most.
        batch_size: rows a step.
        learning_rate: the peak; it is warmed up, then falls along a cosine. Follows from the width if None.
        weight_decay: AdamW's, 1e-4 if None; on few rows with more to tell than they show, .1 overfits later.
        validation_fraction: share of the rows held out to watch the run; used from 50 rows on.
        early_stopping: whether the held-out rows may end the run and choose its best weights.
        patience: looks without improvement after which they do.
        max_seconds: a bound on the training time.
        precision: 'auto' (measured), 'float32' or 'bf16'.
        compile: whether steps are compiled, for long runs; 'auto' decides by their time (see `TrainingSettings`).
        device: 'auto', 'cpu', 'cuda', ...
        random_state: an int makes everything repeatable: same seed, same weights, same draws.

    Attributes:
        family_: the trained family.
        x_space_, y_space_: spaces with the standardisation.
        n_features_in_, feature_names_in_: as in scikit-learn; for tables.
        history_: one row a report: step, loss, held_out_loss.
        n_steps_: steps done. stopped_: why training ended. fit_seconds_: how long it took. precision_: what was used.
        compiled_: whether steps were compiled.

    Examples:
        >>> import everymode as em
        >>> x, y = em.problems.get("fork").sample(500, seed=0)
        >>> model = em.OneToManyRegressor(steps=100, random_state=0).fit(x, y)
        >>> model.sample(x[:3], 10).shape
        (3, 10, 2)
    """

    family_: Family
    x_space_: Space
    y_space_: ArraySpace

    def __init__(
        self,
        family: str | Family = "flow_matching",
        *,
        width: int | None = None,
        depth: int | None = None,
        network: str | NetworkFactory | None = None,
        exchangeable: bool = False,
        steps: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        validation_fraction: float = 0.1,
        early_stopping: bool = True,
        patience: int = 10,
        max_seconds: float | None = None,
        precision: str = "auto",
        compile: bool | str = "auto",
        device: str = "auto",
        random_state: Any = None,
    ) -> None:
        self.family = family
        self.width = width
        self.depth = depth
        self.network = network
        self.exchangeable = exchangeable
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
        self.device = device
        self.random_state = random_state

    def __sklearn_tags__(self) -> Tags:
        """Say what scikit-learn's tools may expect."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.input_tags.three_d_array = True
        return tags

    def set_params(self, **params: Any) -> Self:
        """Set parameters; `family__path=...` also where the family is a name."""
        if any(key.startswith("family__") for key in params):
            family = get_family(params.pop("family", self.family))
            self.family = type(family)(**family.get_params())
        return super().set_params(**params)

    # Fitting -------------------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        Y: Any,
        *,
        teacher: OneToManyRegressor | None = None,
        checkpoint_folder: str | Path | None = None,
        resume: bool = False,
        progress: Callable[[Progress], None] | None = None,
        interrupted: Callable[[], bool] | None = None,
    ) -> Self:
        """Fit p(y | x).

        Args:
            X: (rows, columns), an array, tensor or frame (categorical columns included); also (rows, horizon, d),
                (rows, channels, height, width), or a dict of such arrays.
            Y: (rows,), (rows, d), (rows, horizon, d) or (rows, channels, height, width).
            teacher: a fitted model of the same columns to learn from; see `everymode.distill`, which draws Y from it.
            checkpoint_folder: where the training state is written now and then.
            resume: whether to go on from the state in that folder.
            progress: called with every report of the loop.
            interrupted: asked after every step whether to stop.

        Raises:
            DataError: the data cannot be used; the message names rows, columns or shapes.
            SettingError: a setting is out of range.
        """
        family = get_family(self.family)
        seed = seed_of(self.random_state)
        self.x_space_, x, rows = fit_condition(self, X, exchangeable=check_bool("exchangeable", self.exchangeable))
        self.y_space_, y, self._flat_target = read_target(Y, rows)
        if teacher is not None:
            x, y = self._as_taught(teacher, X, Y, rows)
        fraction = check_number("validation_fraction", self.validation_fraction, 0.0, 0.9)
        held = round(fraction * rows) if self.early_stopping and rows >= 50 else 0
        order = torch.randperm(rows, generator=new_generator(mix(seed, _SPLIT)))
        kept, out = order[held:], order[:held]
        width = default_width(len(kept)) if self.width is None else self.width
        usual_rate = default_learning_rate(width, network_name(self.network, self.y_space_.kind))
        settings = TrainingSettings.for_rows(
            len(kept),
            batch_share=family.batch_share,
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=usual_rate if self.learning_rate is None else self.learning_rate,
            weight_decay=self.weight_decay,
            patience=self.patience,
            max_seconds=self.max_seconds,
            precision=self.precision,
            compile=self.compile,
            seed=mix(seed, _TRAINING),
        )
        built = family.build(
            self.y_space_,
            self.x_space_,
            seed=mix(seed, _INITIAL),
            width=width,
            depth=self.depth,
            network=self.network,
        )
        if teacher is not None:
            built.learn_from(teacher.family_)
        run = train(
            built,
            y[kept],
            take_rows(x, kept),
            settings=settings,
            held_out=(y[out], take_rows(x, out)) if held else None,
            device=resolve_device(self.device),
            folder=checkpoint_folder,
            resume=resume,
            interrupted=interrupted or (lambda: False),
        )
        last = finish(run, progress)
        built.learn_from(None)
        built.eval().settle(place(take_rows(x, out if held else kept), built.device), seed=mix(seed, _SETTLE))
        self.family_ = built
        self.history_, self.n_steps_, self.stopped_ = last.history, last.step, last.finished
        self.fit_seconds_, self.precision_, self.compiled_ = last.seconds, last.precision, last.compiled
        self.sample_seed_ = mix(seed, _SAMPLE)
        self.width_ = width
        self._told_of_valleys = False
        return self

    def _as_taught(self, teacher: OneToManyRegressor, X: Any, Y: Any, rows: int) -> tuple[Condition, torch.Tensor]:
        """Take the spaces of the teacher; return X and Y in them."""
        check_is_fitted(teacher, "family_")
        own, theirs = (
            (m.x_space_.kind, m.y_space_.kind, m.y_space_.shape, tuple(getattr(m, "feature_names_in_", ())))
            for m in (self, teacher)
        )
        if own != theirs:
            raise DataError(
                f"the teacher answers a {theirs[1]} of shape {theirs[2]} given a {theirs[0]}, and the data hold a "
                f"{own[1]} of shape {own[2]} given a {own[0]}, or other columns: a student learns on its teacher's own."
            )
        self.x_space_, self.y_space_ = teacher.x_space_, teacher.y_space_
        return encode_condition(self, X, self.x_space_), encode_target(Y, self.y_space_, rows)

    # Answers -------------------------------------------------------------------------------------------------------

    def sample(
        self,
        X: Any,
        n: int = 1,
        *,
        known: Any = None,
        inpainting: str = "posterior",
        resamplings: int = 10,
        temperature: float = 1.0,
        distinct: bool = False,
        guide: Any = None,
        random_state: int | None = None,
    ) -> np.ndarray:
        """Return `n` draws from p(y | x) for every row.

        Args:
            X: rows, as in `fit`.
            n: draws a row.
            known: values of y that are known, with NaN for what is to be drawn given them: (rows, *event), or (*event)
                for all rows alike; or a frame or a mapping with some columns of Y. They come back as they are. For
                `flow_matching` and `diffusion`, which need no training for it; see `everymode.inpainting`.
            inpainting: how `known` is heeded: 'posterior' (nearer to the truth), or 'replacement' (RePaint; needs no
                gradients).
            resamplings: how often each step of a draw with `known` is taken. The shares of the modes are nearer to the
                truth the more there are, and time is in proportion.
            temperature: draws are from p(y | x)^(1 / temperature): below 1 they keep nearer to the likely. Of a normal,
                standard deviations change by its square root; for what flows do to several answers, see
                `everymode.temperature`.
            distinct: whether the n answers are to differ: of 32 n draws those that lie apart and among others, so that
                each mode is answered before any is twice. They come with the one that stands for most draws first,
                and are no draws from p(y | x): how often a mode occurs says nothing. At most 1024.
            guide: `ClassifierFree(weight)`, `Classifier(log_prob, weight)` or `Autoguidance(weaker_model, weight)` of
                `everymode.guidance`, or a list of one of each, for `flow_matching` and `diffusion`. Guidance costs
                coverage: `everymode.guidance_cost` tells how much.
            random_state: a seed; if None the model's own, so that an int `random_state` repeats the draws.

        Returns:
            (rows, n, *event) in the units of Y; (rows, n) where Y was 1-D.

        Raises:
            DataError: X or `known` cannot be used; the message names shapes, rows or columns.
            SettingError: an option is out of range.
            UnsupportedError: the family cannot do what is asked; the message names those that can.
        """
        n = check_number("n", n, 1, integer=True)
        x = self._condition(X)
        if known is not None:
            known = read_known(known, self.y_space_, count_rows(x), flat=self._flat_target)
        many = self._draws_for(n) if check_bool("distinct", distinct) else n
        guides, weaker_x = read_guides(guide, self, X)
        steering = Steering(self.family_, self.y_space_, known, inpainting, resamplings, temperature, guides, weaker_x)
        seed = self.sample_seed_ if random_state is None else int(random_state)
        drawn = self._draw(x, many, new_generator(seed, self._device()), common=False, steering=steering)
        if distinct:
            apart = spread_out(drawn.flatten(2).numpy().astype(np.float64), n)
            drawn = torch.from_numpy(apart).reshape(-1, n, *self.y_space_.shape)
        return self._squeeze(steering.put(self.y_space_.decode(drawn)))

    def _draws_for(self, n: int) -> int:
        """Return how many draws `n` distinct answers are chosen from."""
        check_number("n", n, 1, _MOST_DISTINCT, integer=True)
        if n > 1 and not self.family_.abilities.several:
            raise UnsupportedError(
                f"family {self.family_.name!r} has one answer for each x, and no distinct ones; these have: "
                f"{able('several')}."
            )
        return max(_PREDICT_DRAWS, min(32 * n, 4096)) if self.family_.abilities.several else 1

    def modes(self, X: Any, n_draws: int = 2000, *, least: float = 0.005, random_state: int | None = None) -> Answers:
        """Return the distinct answers of each row: where they are, how probable, how wide, and how sure.

        Answers are clusters of draws with a valley between any two; see `everymode.modes.basins` for how they are told
        from chance. What is rarer than some ten draws is not found: more draws find rarer answers, and tell shallower
        valleys. The draws of every row come from the same noise, so that what is found for a row does not depend on
        the rows beside it.

        Args:
            X: rows, as in `fit`.
            n_draws: draws a row.
            least: probability below which a cluster is no answer of its own, at most .5.
            random_state: a seed; if None the model's own.

        Returns:
            a sequence with one entry a row: `locations` (k, *event), `probabilities`, `spreads`, `sureness`, and the
            draws with the answer each belongs to. `counts` tells how many there are, and `to_frame()` is a table.
        """
        check_number("least", least, 0.0, 0.5)
        found = []
        for draws in self.common_draws(X, n_draws, random_state):
            places, decoded = draws.flatten(2).double().numpy(), self.y_space_.decode(draws)
            found += [
                self._answers(points, values, least, self._row_seed(random_state))
                for points, values in zip(places, decoded, strict=True)
            ]
        return Answers(found, self.y_space_.value_names, row_titles(X, len(found)))

    def predict(self, X: Any, n_answers: int | None = None) -> np.ndarray:
        """Return the most probable answer for each row, never the average of several.

        The densest point among 128 draws. The draws of every row come from the same noise, so that what a row is
        answered does not depend on the rows beside it.

        Args:
            X: rows, as in `fit`.
            n_answers: the so many most probable modes in its place; see `modes`.

        Returns:
            (rows, *event) in the units of Y; (rows,) where Y was 1-D. With `n_answers` (rows, n_answers, *event), the
            most probable first, and NaN where a row has fewer.
        """
        if n_answers is not None:
            check_number("n_answers", n_answers, 1, integer=True)
            return self.modes(X).best(n_answers)
        answers = [most_probable(draws.flatten(2).double().numpy()) for draws in self.common_draws(X, _PREDICT_DRAWS)]
        standard = torch.from_numpy(np.concatenate(answers)).reshape(-1, 1, *self.y_space_.shape)
        return self._squeeze(self.y_space_.decode(standard)[:, 0])

    def predict_interval(
        self, X: Any, level: float = 0.9, n_draws: int = 1000, *, random_state: int | None = None
    ) -> list[Any]:
        """Return the highest-density region of each row: the shortest intervals that together hold `level` of p(y | x).

        Where y has two modes it is two intervals, and nothing is spent on the gap. What it holds is what the model
        believes: `everymode.Conformal` makes regions that hold as much of new data as asked.

        Args:
            X: rows, as in `fit`.
            level: share of the draws inside, in (0, 1).
            n_draws: draws a row.
            random_state: a seed; if None the model's own.

        Returns:
            one entry a row: intervals (m, 2), rising, in the units of Y; a list of those, one a value, where Y has
            several, each by itself.
        """
        check_level(level)
        found: list[Any] = []
        for draws in self.common_draws(X, n_draws, random_state):
            for row in self.y_space_.decode(draws).reshape(*draws.shape[:2], -1):
                regions = [highest_density_intervals(values, level) for values in row.T]
                found.append(regions[0] if self.y_space_.size == 1 else regions)
        return found

    def mean(self, X: Any, n_draws: int = 1000, *, random_state: int | None = None) -> np.ndarray:
        """Return the average of draws, E[y | x], for each row: what squared error would learn, and often no answer.

        Args:
            X: rows, as in `fit`.
            n_draws: draws a row.
            random_state: a seed; if None the model's own.

        Returns:
            (rows, *event) in the units of Y; (rows,) where Y was 1-D.

        Warns:
            ValleyWarning: the average of a row lies between its answers. Said once a fit.
        """
        parts = []
        for draws in self.common_draws(X, n_draws, random_state):
            average = draws.double().mean(dim=1)
            if not parts and draws.shape[1] > 1 and not getattr(self, "_told_of_valleys", False):
                self._tell_of_valleys(draws.flatten(2).double().numpy(), average.flatten(1).numpy())
            parts.append(average.float())
        return self._squeeze(self.y_space_.decode(torch.cat(parts)[:, None])[:, 0])

    def common_draws(self, X: Any, n_draws: int, random_state: int | None = None) -> Iterator[torch.Tensor]:
        """Yield the standardised draws (rows, n, *event) of some rows at a time; every row has the same noise.

        What is found of a row among them does not depend on the rows beside it. Of a family with one answer a row it
        is one draw.

        Args:
            X: rows, as in `fit`.
            n_draws: draws a row.
            random_state: a seed; if None the model's own.
        """
        x = self._condition(X)
        check_number("n_draws", n_draws, 1, integer=True)
        n = n_draws if self.family_.abilities.several else 1
        for part in torch.arange(count_rows(x)).split(_ROWS_AT_ONCE):
            generator = new_generator(self._row_seed(random_state), self._device())
            yield self._draw(take_rows(x, part), n, generator, common=True)

    def _row_seed(self, random_state: int | None) -> int:
        return mix(self.sample_seed_, _PREDICT) if random_state is None else int(random_state)

    def _answers(self, points: np.ndarray, values: np.ndarray, least: float, seed: int) -> RowAnswers:
        """Return the answers among the standardised draws (n, size) of a row, whose values are (n, *event)."""
        basin, sureness, chosen = answers_among(points, least=least, seed=seed)
        squares = (values - values[chosen][basin]) ** 2
        mine = [basin == answer for answer in range(len(chosen))]
        means = np.stack([values[of].mean(axis=0) for of in mine])
        spreads = np.sqrt([squares[of].mean(axis=0) for of in mine])
        locations, means, spreads, values = (self._squeeze(part) for part in (values[chosen], means, spreads, values))
        return RowAnswers(locations, means, np.bincount(basin) / len(basin), spreads, sureness, values, basin)

    def _tell_of_valleys(self, draws: np.ndarray, averages: np.ndarray) -> None:
        """Warn if averages (rows, size) of draws (rows, n, size) lie between answers, as a few rows tell."""
        rows = np.linspace(0, len(draws) - 1, min(len(draws), _JUDGED_MEANS)).astype(int)
        fell = sum(in_a_valley(draws[row, :_JUDGED_DRAWS], averages[row]) for row in rows)
        if fell:
            self._told_of_valleys = True
            warnings.warn(
                f"the mean lies between the answers in {fell} of {len(rows)} rows that were looked at, and is none of "
                "them: predict(X) gives the most probable answer, and modes(X) all of them.",
                ValleyWarning,
                stacklevel=3,
            )

    @overload
    def log_prob(self, X: Any, Y: Any, *, return_error: Literal[False] = False) -> np.ndarray: ...

    @overload
    def log_prob(self, X: Any, Y: Any, *, return_error: Literal[True]) -> tuple[np.ndarray, np.ndarray]: ...

    def log_prob(self, X: Any, Y: Any, *, return_error: bool = False) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Return log p(y | x) of every row of Y given its row of X, where the family has a density.

        That of `flow_matching` and `diffusion` is an integral along the flow: exact for up to 8 values, and an
        estimate above.

        Args:
            X: rows, as in `fit`.
            Y: one answer a row: (rows, *event); (rows,) where one y is one number.
            return_error: whether the standard error of each estimate is wanted too.

        Returns:
            (rows,), float64, in nats: the logarithm of a density in the units of Y. With `return_error` a pair of it
            and its standard error (rows,), 0 where it is exact.

        Raises:
            UnsupportedError: the family has no density; the message names those that have one.
            DataError: X and Y differ in rows, Y has another shape than in `fit`, or cells are NaN or infinite.
        """
        check_is_fitted(self, "family_")
        if not self.family_.abilities.density:
            raise UnsupportedError(f"family {self.family_.name!r} has no density; these have one: {able('density')}.")
        x, device = self._condition(X), self._device()
        y = encode_target(Y, self.y_space_, count_rows(x))
        found = torch.empty(2, len(y), dtype=torch.float64)
        with torch.inference_mode():
            for start in range(0, len(y), _NETWORK_ROWS):
                rows = slice(start, start + _NETWORK_ROWS)
                pair = self.family_.log_prob_and_error(y[rows].to(device), place(take_rows(x, rows), device))
                found[:, rows] = torch.stack(pair).double().cpu()
        log_prob, error = found.numpy()
        log_prob += self.y_space_.log_jacobian
        return (log_prob, error) if return_error else log_prob

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return how much is known of y, for x: 1 is all, and 0 nothing. The analogue of R^2 for distributions.

        Where the family has a density, R^2 by likelihood, 1 - exp(-2 gain / size): the gain is the mean of log p(y | x)
        over that of a normal with the mean and the spread of every column of `y`, in nats, and size that of one y. For
        a normal model of constant variance that is R^2 (Magee, 1990: R^2 measures based on Wald and likelihood ratio
        joint significance tests). The likelihood sees a mode that is lost. That of a flow with more than 8 values is
        an estimate, and takes its time.

        Where there is none, the energy skill, 1 - energy score / energy score of draws from `y` without looking at x
        (Gneiting and Raftery, 2007: Strictly proper scoring rules). The two are not to be compared with each other;
        `everymode.compare` measures all families alike.

        Args:
            X: rows.
            y: their true answers.
            sample_weight: weights of the rows.
        """
        check_is_fitted(self, "family_")
        truth = as_numbers(y, count_of(X))
        if self.has_density:
            away = truth - np.average(truth, axis=0, weights=sample_weight)
            variance = np.average(away**2, axis=0, weights=sample_weight)
            if not (variance > 0).all():
                return 0.0
            blind = -0.5 * np.log(2 * np.pi * np.e * variance).sum()
            gain = np.average(self.log_prob(X, y), weights=sample_weight) - blind
            return float(-np.expm1(min(-2 * gain / truth.shape[1], _MOST_NEGATIVE)))
        draws = self.sample(X, 64 if self.family_.abilities.several else 1)
        scale = self.y_space_.per_value(self.y_space_.scale).reshape(-1)
        scores = energy_scores(truth, draws.reshape(len(truth), draws.shape[1], -1), scale=scale)
        rng = np.random.default_rng(0)
        other = truth[rng.permutation(len(truth))[: min(len(truth), 256)]]
        blind = energy_scores(truth, np.broadcast_to(other, (len(truth), *other.shape)), scale=scale)
        reference = np.average(blind, weights=sample_weight)
        return float(1 - np.average(scores, weights=sample_weight) / reference) if reference > 0 else 0.0

    @property
    def nfe(self) -> int:
        """Network evaluations for one draw."""
        return get_family(getattr(self, "family_", self.family)).nfe

    @property
    def has_density(self) -> bool:
        """Whether there is `log_prob`."""
        return get_family(getattr(self, "family_", self.family)).abilities.density

    @property
    def n_parameters_(self) -> int:
        """Number of trained parameters."""
        check_is_fitted(self, "family_")
        return self.family_.parameter_count

    def _condition(self, X: Any) -> Condition:
        check_is_fitted(self, "family_")
        return encode_condition(self, X, self.x_space_)

    def _device(self) -> torch.device:
        return self.family_.device

    def _draw(
        self, x: Condition, n: int, generator: torch.Generator, *, common: bool, steering: Steering | None = None
    ) -> torch.Tensor:
        """Return standardised draws (rows, n, *event): x is encoded once a row."""
        rows, event, device = count_rows(x), self.y_space_.shape, self._device()
        state = generator.get_state()
        out = torch.empty(rows, n, *event)
        steering = None if steering is None or steering.idle else steering
        most = _PREDICT_ROWS if common else _NETWORK_ROWS if steering is None else _STEERED_ROWS
        chunk = max(1, most // n)
        if not common and n >= _ALONE and device.type == "cpu":
            chunk = 1
        with torch.inference_mode():
            for start in range(0, rows, chunk):
                # every pass of `common` has one shape: floating point then answers a row alike, whatever is beside it
                last = start + chunk if common else min(start + chunk, rows)
                index = torch.arange(start, last).clamp_(max=rows - 1)
                part = take_rows(x, index)
                embedding = self.family_.encode(place(part, device))
                if common:
                    generator.set_state(state)
                source = Common(generator, n) if common else generator
                repeated = repeat_rows(embedding, n)
                if steering is None:
                    drawn = self.family_.draw(repeated, generator=source)
                else:
                    control = steering.control(index, n, device)
                    drawn = self.family_.controlled(repeated, control, generator=source)
                out[start : start + chunk] = drawn.reshape(-1, n, *event)[: rows - start].cpu()
        return out

    def _squeeze(self, values: np.ndarray) -> np.ndarray:
        return values[..., 0] if self._flat_target else values

    # Files ---------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write the model to a .safetensors file, whole or not at all; `everymode.load` reads it.

        Raises:
            FileError: it cannot be written; an older file of that name survives.
        """
        check_is_fitted(self, "family_")
        left_out = ("family", "network", "random_state")
        seed = self.random_state
        params = {name: value for name, value in self.get_params(deep=False).items() if name not in left_out}
        header = {
            "estimator": {**params, "random_state": int(seed) if isinstance(seed, (int, np.integer)) else None},
            "flat_target": self._flat_target,
            "feature_names_in_": [str(name) for name in getattr(self, "feature_names_in_", [])],
            "fitted": {name: getattr(self, name, None) for name in _SAVED},
        }
        return write_model(path, self.family_, header, width=self.width_, depth=self.depth, network=self.network)


def load(path: str | Path, *, device: str = "auto", network: NetworkFactory | None = None) -> OneToManyRegressor:
    """Return the fitted model that `OneToManyRegressor.save` wrote.

    Args:
        path: the .safetensors file, or a run folder that holds `model.safetensors`.
        device: where the model goes.
        network: the factory of a model that was trained with a network of your own.

    Raises:
        CheckpointError: the file is absent, damaged, truncated or foreign, or needs `network`.
    """
    built, header = read_model(path, network=network)
    settings = type(built)(**built.get_params())
    model = OneToManyRegressor(settings, network=header["network"], **{**header["estimator"], "device": device})
    fitted = {name: value for name, value in header["fitted"].items() if value is not None}
    if header["feature_names_in_"]:
        fitted["feature_names_in_"] = np.asarray(header["feature_names_in_"], dtype=object)
    fitted |= {"x_space_": built.x_space, "y_space_": built.y_space, "_flat_target": header["flat_target"]}
    for name, value in fitted.items():
        setattr(model, name, value)
    model.family_ = built.to(resolve_device(device))
    return model
