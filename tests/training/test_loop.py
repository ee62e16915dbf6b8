"""The training loop keeps its promises: what it averages, clips, orders, keeps and refuses."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

import everymode as em
from everymode.errors import DataError, SettingError
from everymode.families import Family, FlowMatching, Part
from everymode.randomness import new_generator, seeded
from everymode.spaces import VectorSpace
from everymode.training import (
    STATE_FILE,
    TrainingSettings,
    bf16_speedup,
    choose_precision,
    default_width,
    read_tensors,
    train,
)
from everymode.training.flat import FlatAdamW, FlatParameters
from everymode.training.precision import NEEDED_SPEEDUP, has_bf16
from everymode.training.run import Batches, learning_rate_at

CPU = torch.device("cpu")


def linear(inputs, outputs):
    with seeded(0):  # nn.Linear draws its weights from torch's global generator
        return nn.Linear(inputs, outputs)


class Linear(Family):
    """y = w x + b by squared error; remembers the batches, and may break at a step."""

    name = "linear_test"

    def __init__(self, *, break_at: int | None = None, factor: float = 1.0) -> None:
        super().__init__()
        self.break_at, self.factor = break_at, factor
        self.layer = linear(1, 1)
        with torch.no_grad():
            self.layer.weight.fill_(0.0)
            self.layer.bias.fill_(0.0)
        self.seen: list[list[float]] = []

    def assemble(self, y_space, x_space, sizes):
        self.encoder, self.network = nn.Identity(), nn.Identity()

    def loss(self, y, x, *, generator=None):
        if self.training and torch.is_grad_enabled():
            self.seen.append(x[:, 0].tolist())
        losses = self.factor * (self.layer(x) - y).square().mean(dim=1)
        if self.break_at is not None and len(self.seen) > self.break_at:
            return losses * math.nan
        return losses

    def draw(self, embedding, *, generator=None):
        return self.layer(embedding)


def line(rows=20, slope=2.0):
    x = torch.arange(rows, dtype=torch.float32)[:, None] / rows
    return slope * x + 1, x


def settings(**given):
    usual = {"steps": 40, "batch_size": 8, "learning_rate": 0.05, "validate_every": 10, "patience": None}
    return TrainingSettings(**{**usual, **given})


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


# What goes in --------------------------------------------------------------------------------------------------------


def test_rows_that_disagree_are_refused():
    with pytest.raises(DataError, match=r"y has 20 rows and x has 19"):
        next(train(Linear(), line()[0], line()[1][:19], settings=settings()))
    with pytest.raises(DataError, match="no rows"):
        next(train(Linear(), line()[0][:0], line()[1][:0], settings=settings()))


@pytest.mark.parametrize(("rows", "batch"), [(20, 5), (20, 8), (7, 16), (1, 3), (32, 32)])
def test_every_row_is_seen_once_an_epoch(rows, batch):
    """Batches are consecutive slices of one random order after another; a batch may lie across two of them."""
    batches = Batches(rows, batch, seed=3, device=CPU)
    epochs = 4
    steps = math.ceil(epochs * rows / batch)
    drawn = torch.cat([batches.index(step, 0, 1) for step in range(steps)])
    assert len(drawn) == steps * batch
    orders = [drawn[e * rows : (e + 1) * rows].tolist() for e in range(epochs)]
    assert all(sorted(order) == list(range(rows)) for order in orders)
    if rows >= 20:
        assert len({tuple(order) for order in orders}) == epochs
        assert orders[0] != list(range(rows))


def test_batches_are_a_function_of_the_step_alone():
    rows, batch = 13, 8
    forward, other = (Batches(rows, batch, seed=5, device=CPU) for _ in range(2))
    in_order = [forward.index(step, 0, 1).tolist() for step in range(12)]
    assert [other.index(step, 0, 1).tolist() for step in reversed(range(12))] == in_order[::-1]
    assert Batches(rows, batch, seed=6, device=CPU).index(0, 0, 1).tolist() != in_order[0]


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_the_batch_of_one(world):
    batches = Batches(11, 8, seed=5, device=CPU)
    for step in range(6):
        shares = [batches.index(step, rank, world) for rank in range(world)]
        assert [len(share) for share in shares] == [8 // world] * world
        assert torch.cat(shares).tolist() == batches.index(step, 0, 1).tolist()


def test_the_loop_takes_these_batches():
    family = Linear()
    y, x = line()
    list(train(family, y, x, settings=settings(steps=5, batch_size=8, seed=1)))
    assert len(family.seen) == 5
    assert sorted(np.concatenate(family.seen)[:20]) == sorted(x[:, 0].tolist())


# One step ------------------------------------------------------------------------------------------------------------


def test_the_average_equals_a_hand_computation():
    """The kept weights are an exponential average of the path, with a short memory while the run is young."""
    y, x = line()
    chosen = settings(steps=25, gradient_clip=None, ema=0.8, weight_decay=0.01, seed=4)
    family = Linear()
    list(train(family, y, x, settings=chosen))

    own = Linear()
    optimizer = torch.optim.AdamW(own.parameters(), lr=0.0, weight_decay=0.01)
    averages = [p.detach().clone() for p in own.parameters()]
    batches = Batches(20, 8, seed=4, device=CPU)
    for step in range(25):
        optimizer.param_groups[0]["lr"] = learning_rate_at(step / 25, chosen)
        rows = batches.index(step, 0, 1)
        optimizer.zero_grad()
        (own.layer(x[rows]) - y[rows]).square().mean().backward()
        optimizer.step()
        decay = min(0.8, (1 + step) / (10 + step))
        averages = [decay * a + (1 - decay) * p.detach() for a, p in zip(averages, own.parameters(), strict=True)]
    for kept, expected, raw in zip(family.parameters(), averages, own.parameters(), strict=True):
        torch.testing.assert_close(kept.detach(), expected, rtol=1e-5, atol=1e-6)
        assert (kept - raw).abs().max() > 1e-3  # the average is not the last point


def test_the_decay_of_the_average_follows_from_the_steps():
    """Without `ema` the memory is a thirtieth of the run, so that a short run forgets where it began."""
    y, x = line()
    given, derived = Linear(), Linear()
    list(train(given, y, x, settings=settings(steps=600, ema=1 - 1 / 20)))
    list(train(derived, y, x, settings=settings(steps=600)))
    assert torch.equal(given.layer.weight, derived.layer.weight)


def test_the_learning_rate_warms_up_then_falls_along_half_a_cosine():
    chosen = TrainingSettings(learning_rate=0.4, warmup=0.1, final_learning_rate=0.05)
    at = [learning_rate_at(k / 1000, chosen) for k in range(1001)]
    peak = int(np.argmax(at))
    assert peak == 100
    assert at[peak] == pytest.approx(0.4)
    assert at[50] == pytest.approx(0.2)
    assert 0 < at[0] < 0.01  # above 0: the first step moves
    assert at[550] == pytest.approx(0.4 * (1 + 0.05) / 2)
    assert at[1000] == pytest.approx(0.4 * 0.05)
    assert np.all(np.diff(at[:101]) >= 0)
    assert np.all(np.diff(at[100:]) <= 0)
    assert learning_rate_at(1.5, chosen) == at[1000]
    assert learning_rate_at(0.0, TrainingSettings(learning_rate=0.4, warmup=0.0)) == pytest.approx(0.4)


def test_the_time_hastens_the_learning_rate(monkeypatch):
    """Where the time is ahead of the steps, the rate falls with the time, so that a bounded run also anneals."""
    clock = iter(np.arange(0, 1000, 0.25))
    monkeypatch.setattr("everymode.training.loop.time.perf_counter", lambda: next(clock))
    rates = []
    monkeypatch.setattr(
        "everymode.training.run.learning_rate_at", lambda p, s: rates.append(p) or learning_rate_at(p, s)
    )
    last = list(train(Linear(), *line(), settings=settings(steps=10**6, max_seconds=4.0)))[-1]
    assert last.finished == "time limit"
    assert last.step < 40
    assert rates[-1] > 0.9
    assert np.all(np.diff(rates) > 0)


@pytest.mark.parametrize("clip", [0.5, None])
def test_clipping_bounds_the_norm_of_the_gradient(clip):
    """AdamW's first moment after one step is a tenth of the gradient that it was given."""
    y, x = line()
    family = Linear(factor=1000.0)
    run = train(family, y, x, settings=settings(steps=1, batch_size=20, gradient_clip=clip))
    firsts = []
    step = FlatAdamW.step

    def watched(self, *args):
        step(self, *args)
        firsts.append(self.first.clone())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FlatAdamW, "step", watched)
        list(run)
    gradient = 10 * firsts[0]
    own = Linear(factor=1000.0)
    own.loss(y, x).mean().backward()
    expected = torch.cat([p.grad.reshape(-1) for p in own.parameters()])
    norm = float(torch.linalg.vector_norm(expected))
    assert norm > 1000
    if clip is not None:
        expected = expected * clip / norm  # shortened as a whole: its direction stays
        assert float(torch.linalg.vector_norm(gradient)) <= clip * (1 + 1e-5)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_the_optimiser_is_adamw(decay):
    """As torch's own, over steps of changing rates."""
    generator = new_generator(0)
    values = torch.randn(7, generator=generator)
    other = nn.Parameter(values.clone())
    reference = torch.optim.AdamW([other], weight_decay=decay)
    own = FlatAdamW(values, weight_decay=decay)
    for step in range(20):
        gradient = torch.randn(7, generator=generator)
        other.grad = gradient.clone()
        reference.param_groups[0]["lr"] = 0.1 / (1 + step)
        reference.step()
        own.step(values, gradient, 0.1 / (1 + step), None)
    torch.testing.assert_close(values, other.detach(), rtol=1e-5, atol=1e-6)


def test_clipping_leaves_small_gradients_alone():
    kept, clipped = Linear(factor=1e-4), Linear(factor=1e-4)
    list(train(kept, *line(), settings=settings(gradient_clip=None)))
    list(train(clipped, *line(), settings=settings(gradient_clip=10.0)))
    assert torch.equal(kept.layer.weight, clipped.layer.weight)


# What is kept --------------------------------------------------------------------------------------------------------


def test_early_stopping_keeps_the_best_weights():
    """The training rows pull the bias to 1, the held-out rows lie at 0.5: the loss there falls, then rises."""
    y, x = torch.ones(8, 1), torch.zeros(8, 1)
    held_out = (torch.full((4, 1), 0.5), torch.zeros(4, 1))
    family, snapshots = Linear(), {}
    run = train(family, y, x, settings=settings(steps=2000, validate_every=10, patience=3, ema=0.5), held_out=held_out)
    reports = []
    for report in run:
        reports.append(report)
        snapshots[report.step] = weights(family)
    looks = [r for r in reports if r.held_out_loss is not None]
    last = reports[-1]
    assert last.finished == "early stopping"
    best = min(looks, key=lambda r: r.held_out_loss)
    assert (last.best_step, last.best_loss) == (best.step, best.held_out_loss)
    assert last.step == best.step + 3 * 10  # patience, in looks
    assert 0 < looks.index(best) < len(looks) - 1
    # what is kept is the state that was looked at: the loss there is the one that was reported
    with torch.no_grad():
        assert float(family.loss(*held_out).mean()) == pytest.approx(best.held_out_loss, rel=1e-6)
    assert abs(float(family.layer.bias.detach()) - 0.5) < 0.2
    assert float(snapshots[looks[-2].step]["layer.bias"]) > 0.7  # where the optimiser was


def test_without_patience_the_run_is_whole_and_the_best_is_kept_all_the_same():
    held_out = (torch.full((4, 1), 0.5), torch.zeros(4, 1))
    family = Linear()
    last = list(train(family, torch.ones(8, 1), torch.zeros(8, 1), settings=settings(ema=0.5), held_out=held_out))[-1]
    assert (last.finished, last.step) == ("completed", 40)
    with torch.no_grad():
        assert float(family.loss(*held_out).mean()) == pytest.approx(last.best_loss, rel=1e-6)


def test_looking_changes_nothing():
    """The held-out rows are looked at in passing: the path of the weights is the same, looks or not."""
    y, x = line()
    ends = []
    for held_out, every in ((None, 40), ((y[:4], x[:4]), 20), ((y[:4], x[:4]), 5)):
        family = Linear()
        run = train(family, y, x, settings=settings(validate_every=every), held_out=held_out)
        ends += [weights(family) for report in run if report.step == 20]
    assert len(ends) == 3
    for other in ends[1:]:
        assert torch.equal(ends[0]["layer.weight"], other["layer.weight"])


def test_a_loss_that_turns_nan_keeps_the_last_good_state(tmp_path):
    y, x = line()
    family = Linear(break_at=25)
    run = train(family, y, x, settings=settings(checkpoint_every=5), held_out=(y[:4], x[:4]), folder=tmp_path)
    reports = list(run)
    last = reports[-1]
    assert last.finished == "diverged"
    assert last.step == 30  # the first report after step 25
    assert last.best_step == 20
    assert all(torch.isfinite(p).all() for p in family.parameters())
    family.break_at = None
    with torch.no_grad():
        assert float(family.loss(y[:4], x[:4]).mean()) == pytest.approx(last.best_loss, rel=1e-5)
    tensors, header = read_tensors(tmp_path / STATE_FILE, kind="training")
    assert header["counters"]["step"] == 25  # the checkpoint on disk is the last good one
    assert all(torch.isfinite(t).all() for t in tensors.values())
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize("held", [True, False])
def test_nan_before_there_is_a_state_to_keep(tmp_path, held):
    y, x = line()
    run = train(
        Linear(break_at=0), y, x, settings=settings(), held_out=(y[:4], x[:4]) if held else None, folder=tmp_path
    )
    with pytest.raises(SettingError, match=r"the loss was nan at step 10, .*Lower learning_rate \(it is 0.05\)"):
        list(run)
    assert not (tmp_path / STATE_FILE).exists()


def test_the_estimator_warns_in_a_sentence_when_training_diverges():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 1))
    model = em.OneToManyRegressor(Breaking(break_at=250), steps=1000, batch_size=32, random_state=0)
    with pytest.warns(ConvergenceWarning, match=r"training diverged at step \d+; .* of step 200\. Lower learning_rate"):
        model.fit(x, 2 * x[:, 0] + 1)
    assert model.stopped_ == "diverged"
    assert np.isfinite(model.predict(x)).all()
    assert np.abs(model.predict(x) - 2 * x[:, 0] - 1).max() < np.ptp(2 * x)  # the good state answers


class Breaking(Linear):
    """As `Linear`, built on its settings by the estimator."""

    name = "breaking_test"
    abilities = em.families.Abilities(several=False)

    def __init__(self, *, break_at: int | None = None) -> None:
        super().__init__(break_at=break_at)


# Parts and stages ----------------------------------------------------------------------------------------------------


class Adversaries(Family):
    """Two parts of one stage, trained in turn: a generator of one number and a critic that remembers it."""

    name = "adversaries_test"

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.critic = linear(1, 1), linear(1, 1)
        self.calls: list[str] = []

    def parts(self):
        return [Part("any name", self.generator, self._generate), Part("another", self.critic, self._judge)]

    def _generate(self, y, x, *, generator=None):
        if torch.is_grad_enabled():
            self.calls.append("generator")
        return (self.generator(x) - y).square()[:, 0] + 0 * self.critic(x).sum()

    def _judge(self, y, x, *, generator=None):
        if torch.is_grad_enabled():
            self.calls.append("critic")
        return (self.critic(x) - self.generator(x)).square()[:, 0]


class Stages(Family):
    """A tokeniser, then its prior: each layer learns in its own stage and rests in the other one."""

    name = "stages_test"

    def __init__(self, *, share: float = 1.0) -> None:
        super().__init__()
        self.share = share
        self.tokeniser, self.prior = linear(1, 1), linear(1, 1)
        self.calls: list[str] = []

    def parts(self):
        def tokenise(y, x, *, generator=None):
            if torch.is_grad_enabled():
                self.calls.append("tokeniser")
            return (self.tokeniser(x) - y).square()[:, 0]

        def predict(y, x, *, generator=None):
            if torch.is_grad_enabled():
                self.calls.append("prior")
            return (self.prior(x) - self.tokeniser(x).detach()).square()[:, 0]

        return [
            Part("prior", self.prior, predict, stage=7),
            Part("tokeniser", self.tokeniser, tokenise, stage=2, share=self.share),
        ]


def test_parts_of_one_stage_are_stepped_in_turn():
    family = Adversaries()
    last = list(train(family, *line(), settings=settings(steps=400, learning_rate=0.1)))[-1]
    assert family.calls == ["generator", "critic"] * 400
    x = line()[1]
    with torch.no_grad():
        assert float((family.generator(x) - line()[0]).abs().max()) < 0.05
        assert float((family.critic(x) - family.generator(x)).abs().max()) < 0.05
    assert last.finished == "completed"


def test_the_loss_of_one_part_does_not_move_another(monkeypatch):
    """The critic's loss has gradients in the generator; only the critic takes its step, and they do not pile up."""
    family = Adversaries()
    alone = linear(1, 1)
    alone.load_state_dict(family.generator.state_dict())
    list(train(family, *line(), settings=settings(steps=30)))

    class Alone(Family):
        name = "alone_test"

        def __init__(self) -> None:
            super().__init__()
            self.generator = alone

        def loss(self, y, x, *, generator=None):
            return (self.generator(x) - y).square()[:, 0]

    list(train(Alone(), *line(), settings=settings(steps=30)))
    torch.testing.assert_close(family.generator.weight, alone.weight, rtol=0, atol=1e-6)


def test_stages_follow_one_another_and_share_the_steps():
    family = Stages(share=3.0)
    first, frozen, reports = weights(family), {}, []
    for report in train(family, *line(), settings=settings(steps=800, learning_rate=0.1)):
        reports.append(report)
        if report.finished and not frozen:
            frozen = weights(family)
    assert family.calls == ["tokeniser"] * 600 + ["prior"] * 200
    assert [r.step for r in reports if r.finished] == [600, 800]
    assert torch.equal(frozen["prior.weight"], first["prior.weight"])
    assert torch.equal(family.tokeniser.weight, frozen["tokeniser.weight"])
    x = line()[1]
    with torch.no_grad():
        assert float((family.tokeniser(x) - line()[0]).abs().max()) < 0.05
        assert float((family.prior(x) - family.tokeniser(x)).abs().max()) < 0.1


def test_each_stage_has_a_schedule_of_its_own(monkeypatch):
    rates = []
    monkeypatch.setattr(
        "everymode.training.run.learning_rate_at", lambda p, s: rates.append(learning_rate_at(p, s)) or rates[-1]
    )
    list(train(Stages(), *line(), settings=settings(steps=80)))
    assert rates[:40] == rates[40:]
    assert max(rates) == pytest.approx(0.05, rel=0.01)


def test_each_stage_stops_early_by_its_own_loss():
    held_out = (torch.full((4, 1), 0.5), torch.zeros(4, 1))
    family = Stages()
    with torch.no_grad():
        for layer in (family.tokeniser, family.prior):
            layer.weight.zero_()
            layer.bias.zero_()
    reports = list(
        train(
            family,
            torch.ones(8, 1),
            torch.zeros(8, 1),
            settings=settings(steps=4000, patience=3, ema=0.5),
            held_out=held_out,
        )
    )
    ends = [r for r in reports if r.finished]
    assert ends[0].finished == "early stopping"
    assert len(ends) == 2
    assert ends[0].step < 2000
    kept = float(family.tokeniser.bias.detach())
    assert abs(kept - 0.5) < 0.2  # the best, not the last
    assert float(family.prior.bias.detach()) == pytest.approx(kept, abs=0.05)  # learned from the kept tokeniser


def test_stages_share_the_seconds(monkeypatch):
    clock = iter(np.arange(0, 10_000, 0.01))
    monkeypatch.setattr("everymode.training.loop.time.perf_counter", lambda: next(clock))
    family = Stages()
    reports = list(train(family, *line(), settings=settings(steps=10**6, max_seconds=8.0)))
    assert [r.finished for r in reports if r.finished] == ["time limit", "time limit"]
    tokeniser, prior = family.calls.count("tokeniser"), family.calls.count("prior")
    assert 0.8 < tokeniser / prior < 1.25


# Flat parameters, precision, randomness ------------------------------------------------------------------------------


def test_parameters_stay_views_of_the_flat_tensor():
    module = nn.Sequential(linear(3, 4), nn.SiLU(), linear(4, 2))
    module[2].bias.requires_grad_(False)
    x = torch.randn(5, 3, generator=new_generator(0))
    before, names = module(x).detach(), list(module.state_dict())
    parameters = list(module.parameters())
    trained = parameters[:-1]
    flat = FlatParameters(module)
    assert all(a is b for a, b in zip(module.parameters(), parameters, strict=True))
    assert list(module.state_dict()) == names
    assert torch.equal(module(x).detach(), before)
    assert flat.values.numel() == sum(p.numel() for p in trained)
    for _ in range(2):
        flat.clear()
        module(x).square().sum().backward()
    assert torch.equal(flat.collect(), torch.cat([p.grad.reshape(-1) for p in trained]))
    expected = torch.autograd.grad(module(x).square().sum(), trained)
    torch.testing.assert_close(flat.gradient, torch.cat([g.reshape(-1) for g in expected]))
    flat.set(torch.zeros_like(flat.values))
    assert all((p == 0).all() for p in trained)
    assert not (parameters[-1] == 0).all()
    with flat.holding(torch.ones_like(flat.values)):
        assert all((p == 1).all() for p in trained)
    assert all((p == 0).all() for p in trained)


def test_half_precision_is_a_copy_that_follows():
    module = linear(3, 4)
    flat = FlatParameters(module)
    full = flat.values.clone()
    flat.use_half()
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
    assert torch.equal(flat.values, full)  # what the optimiser works on stays whole
    flat.values.add_(1.0)
    flat.publish()
    assert torch.equal(module.weight.detach().reshape(-1), (full + 1)[:12].bfloat16())
    flat.use_full()
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert torch.equal(module.weight.detach().reshape(-1), (full + 1)[:12])


def test_parameters_are_views_after_training_too():
    family = Linear()
    list(train(family, *line(), settings=settings()))
    storages = {p.data.untyped_storage().data_ptr() for p in family.parameters()}
    assert len(storages) == 1


def test_a_part_without_parameters_is_refused():
    with pytest.raises(SettingError, match="trainable parameters"):
        FlatParameters(nn.SiLU())


def space_pair():
    one = VectorSpace.fit(np.random.default_rng(0).normal(size=(50, 1)))
    return one, one


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_precision_that_was_asked_for_is_used_and_recorded(tmp_path, precision):
    y, x = line()
    seen = set()

    class Watching(Linear):
        def loss(self, y, x, *, generator=None):
            seen.add(self.layer(x).dtype)
            return super().loss(y, x, generator=generator)

    last = list(train(Watching(), y, x, settings=settings(precision=precision), folder=tmp_path))[-1]
    assert last.precision == precision
    assert seen == {torch.bfloat16 if precision == "bf16" else torch.float32}
    counters = read_tensors(tmp_path / STATE_FILE, kind="training")[1]["counters"]
    assert counters["precision"] == precision
    resumed = Watching()
    seen.clear()
    other = settings(precision="float32" if precision == "bf16" else "bf16", steps=60)
    resumed_last = list(train(resumed, y, x, settings=other, folder=tmp_path, resume=True))[-1]
    assert resumed_last.precision == precision  # a resumed run goes on as it began


def test_the_weights_stay_float32_under_bf16():
    family = FlowMatching().build(*space_pair(), width=16, depth=1)
    y = x = torch.randn(40, 1, generator=new_generator(0))
    list(train(family, y, x, settings=settings(precision="bf16")))
    assert {p.dtype for p in family.parameters()} == {torch.float32}


def test_the_rule_for_bf16(monkeypatch):
    import everymode.training.precision as rule

    measured = []
    monkeypatch.setattr(rule, "has_bf16", lambda device: True)
    for speed, expected in ((NEEDED_SPEEDUP, "bf16"), (NEEDED_SPEEDUP - 0.01, "float32")):
        monkeypatch.setattr(
            rule, "bf16_speedup", lambda device, width, batch, speed=speed: measured.append(width) or speed
        )
        assert choose_precision("auto", CPU, 256, 128) == expected
    assert measured == [256, 256]
    assert choose_precision("auto", CPU, 255, 128) == "float32"
    assert choose_precision("bf16", CPU, 8, 128) == "bf16"
    assert choose_precision("float32", CPU, 4096, 128) == "float32"
    assert measured == [256, 256]  # nothing else was measured
    monkeypatch.setattr(rule, "has_bf16", lambda device: False)
    assert choose_precision("auto", CPU, 4096, 128) == "float32"
    with pytest.raises(SettingError, match="precision='half'"):
        choose_precision("half", CPU, 4096, 128)


def test_the_choice_follows_from_the_measurement_on_this_machine():
    chosen = choose_precision("auto", CPU, 256, 64)
    faster = has_bf16(CPU) and bf16_speedup("cpu", 256, 64) >= NEEDED_SPEEDUP
    assert chosen == ("bf16" if faster else "float32")


def test_training_touches_no_global_state():
    torch_state, threads, dtype = torch.get_rng_state(), torch.get_num_threads(), torch.get_default_dtype()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    family = FlowMatching().build(*space_pair(), width=16, depth=1)
    y = x = torch.randn(40, 1, generator=new_generator(0))
    for _ in train(family, y, x, settings=settings(), held_out=(y, x)):
        assert torch.equal(torch.get_rng_state(), torch_state)
    assert (torch.get_num_threads(), torch.get_default_dtype()) == (threads, dtype)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_same_seed_same_weights_whatever_the_global_seed():
    y = x = torch.randn(40, 1, generator=new_generator(0))
    found = []
    for seed, elsewhere in ((1, 0), (1, 99), (2, 0)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(elsewhere)
            family = FlowMatching().build(*space_pair(), width=16, depth=1, seed=7)
            list(train(family, y, x, settings=settings(seed=seed)))
        found.append(torch.cat([p.detach().reshape(-1) for p in family.parameters()]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_defaults_follow_from_the_rows():
    assert [default_width(rows) for rows in (200, 20_000, 100_000, 1_000_000)] == [64, 128, 256, 512]
    sizes = [TrainingSettings.for_rows(rows) for rows in (200, 2000, 5000, 10**6)]
    assert [s.batch_size for s in sizes] == [128, 256, 512, 1024]
    assert [s.steps for s in sizes] == [3000, 6000, 5000, 20_000]
    assert TrainingSettings.for_rows(200, steps=7, batch_size=None).steps == 7
    with pytest.raises(SettingError, match="unknown training setting"):
        TrainingSettings.for_rows(200, epochs=3)


def test_the_loop_warns_of_nothing_and_prints_nothing(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(train(Linear(), *line(), settings=settings()))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_run_left_in_the_middle_ends_the_program_quietly(precision):
    """An iterator that is dropped, as by an error in the caller, must not make torch abort at exit."""
    code = f"""
import torch
from everymode.families import FlowMatching
from everymode.spaces import VectorSpace
from everymode.training import TrainingSettings, train
plane = VectorSpace((2,), (0.0, 0.0), (1.0, 1.0))
family = FlowMatching().build(plane, plane, width=16)
data = torch.zeros(50, 2)
run = train(family, data, data, settings=TrainingSettings(steps=100, precision={precision!r}))
next(run)
raise RuntimeError("left")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("RuntimeError: left")
