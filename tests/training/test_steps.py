"""A step is the same however it is made: call by call, compiled, or as a CUDA graph."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn

import everymode as em
from everymode.errors import SettingError
from everymode.families import Family, FlowMatching, Part, get_family, names
from everymode.randomness import Script, new_generator, normal, seeded, stratified, uniform
from everymode.spaces import VectorSpace
from everymode.training import TrainingSettings, train
from everymode.training.run import Run

UNIT = VectorSpace((2,), (0.0, 0.0), (1.0, 1.0))
NOTHING = VectorSpace((0,), (), ())
ONE = VectorSpace((1,), (0.0,), (1.0,))
BY_GRADIENT = [name for name in names() if get_family(name).abilities.gradient]

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler here")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")


def take_as_worth(monkeypatch, seconds):
    """Let 'auto' compile from so many seconds of training left, however slow the machine is at the moment."""
    monkeypatch.setattr("everymode.training.run._WORTH_COMPILING", seconds)
    monkeypatch.setattr("everymode.training.run._SHORT_STEP", float("inf"))


def table(rows=1000):
    """Return (y, x): two answers, the farther apart the larger x."""
    generator = new_generator(0)
    x = torch.randn(rows, 1, generator=generator)
    side = torch.randint(0, 2, (rows, 1), generator=generator) * 2.0 - 1.0
    y = torch.cat([side + 0.1 * torch.randn(rows, 1, generator=generator), x.sin()], dim=1)
    return y, x


def states(name, *, steps=12, device="cpu", width=32, recorded=None, **settings):
    """Return the tensors of every part of the first stage after some steps, and the run."""
    family = get_family(name).build(UNIT, ONE, seed=0, width=width)
    if recorded is not None:
        parts = [replace(part, recorded=recorded) for part in family.parts()]
        family.parts = lambda: parts
    settings = TrainingSettings(**{"steps": steps, "batch_size": 64, "precision": "float32", "seed": 1, **settings})
    run = Run(family, table(), None, settings, torch.device(device), None)
    run.prepare()
    for _ in range(steps):
        for index in run.stages[0][0]:
            run.step(index, run.counters.step / steps)
        run.counters.step += 1
    return [run.parts[index].tensors() for index in run.stages[0][0]], run


def assert_close(found, wanted, *, tolerance):
    for part, (mine, theirs) in enumerate(zip(found, wanted, strict=True)):
        for key in theirs:
            torch.testing.assert_close(
                mine[key].cpu(),
                theirs[key].cpu(),
                rtol=tolerance,
                atol=tolerance,
                msg=lambda m, p=part, k=key: f"{p} {k} {m}",
            )


def test_a_script_hands_out_what_the_generator_would_have_drawn():
    like = torch.zeros(3)

    def draws(source):
        return [normal((3, 2), source, like=like), uniform((4,), source, like=like), stratified(5, source, like=like)]

    script = Script(new_generator(7))
    for first, second in zip(draws(script), draws(new_generator(7)), strict=True):
        assert torch.equal(first, second)
    script.generator.manual_seed(11)
    for first, second in zip(draws(script.perform(script.draw())), draws(new_generator(11)), strict=True):
        assert torch.equal(first, second)


@needs_compiler
def test_compiled_steps_equal_steps_call_by_call():
    wanted, _ = states("flow_matching", compile=False)
    found, run = states("flow_matching", compile=True)
    assert type(next(iter(run._steps.values()))).__name__ == "Compiled"
    assert_close(found, wanted, tolerance=2e-5)
    slower, _ = states("flow_matching", compile=False, learning_rate=0.9e-3)
    with pytest.raises(AssertionError):
        assert_close(found, slower, tolerance=2e-5)


class Reader(Family):
    """A loss that reads a value of a tensor, and may promise not to."""

    name = "reader_test"

    def __init__(self, *, promises: bool = True) -> None:
        super().__init__()
        self.promises, self.calls = promises, 0
        with seeded(0):
            self.layer = nn.Linear(1, 1)

    def parts(self):
        return [Part("model", self, self.loss, recorded=self.promises)]

    def loss(self, y, x, *, generator=None):
        self.calls += 1
        error = (self.layer(x) - y).square().mean(dim=1)
        return error if float(error.detach().mean()) > 0 else 2 * error


def reader(**settings):
    family = Reader(promises=settings.pop("promises", True))
    y, x = table()
    made = TrainingSettings(**{"steps": 5, "batch_size": 64, "seed": 0, **settings})
    for progress in train(family, y[:, :1], x, settings=made):
        last = progress
    return family, last


def test_a_step_that_cannot_be_compiled_is_refused_where_it_was_asked_for():
    with pytest.raises(SettingError, match=r"the step of part 'model' cannot be compiled: .+ Leave compile at 'auto'"):
        reader(compile=True)


@pytest.mark.parametrize("coupling", ["optimal_transport", "conditional_ot"])
def test_a_pairing_that_is_looked_up_on_the_host_is_not_frozen_into_a_step(coupling):
    y, x = table()
    free = coupling == "optimal_transport"
    family = FlowMatching(coupling=coupling).build(UNIT, NOTHING if free else ONE, seed=0, width=16)
    settings = TrainingSettings(steps=5, batch_size=64, compile=True)
    with pytest.raises(SettingError, match="not the same operations every time"):
        list(train(family, y, x[:, :0] if free else x, settings=settings))
    part = replace(family.parts()[0], recorded=True)
    family.parts = lambda: [part]  # and were it not told, it would be seen
    with pytest.raises(SettingError, match="cannot be compiled"):
        list(train(family, y, x[:, :0] if free else x, settings=settings))


@needs_cuda
def test_a_pairing_that_is_looked_up_on_the_host_is_not_frozen_into_a_graph():
    wanted, _ = states(FlowMatching(coupling="conditional_ot"), device="cuda", compile=False)
    for told in (False, True):
        found, run = states(FlowMatching(coupling="conditional_ot"), device="cuda", recorded=told)
        assert all(getattr(step, "graph", None) is None for step in run._steps.values())
        assert_close(found, wanted, tolerance=1e-5)


class Annealed(Reader):
    """A loss whose weight follows a count that is kept in Python."""

    name = "annealed_test"

    def loss(self, y, x, *, generator=None):
        self.calls += 1
        return (self.layer(x) - y).square().mean(dim=1) / self.calls


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_a_loss_that_counts_is_made_call_by_call(monkeypatch, device):
    take_as_worth(monkeypatch, 0.0)
    y, x = table()
    family = Annealed()
    list(train(family, y[:, :1], x, settings=TrainingSettings(steps=60, batch_size=64), device=device))
    assert family.calls >= 60
    if device == "cpu":
        asked = TrainingSettings(steps=60, batch_size=64, compile=True)
        with pytest.raises(SettingError, match="its loss counts in Python"):
            list(train(Annealed(), y[:, :1], x, settings=asked))


def test_a_part_that_says_so_is_made_call_by_call(monkeypatch):
    take_as_worth(monkeypatch, 0.0)
    monkeypatch.setattr("everymode.training.run.Compiled", None)
    family, last = reader(steps=60, promises=False)
    assert (family.calls, last.finished) == (60, "completed")
    with pytest.raises(SettingError, match=r"steps of part 'model' are not the same operations every time"):
        reader(compile=True, promises=False)


def test_auto_goes_on_call_by_call_where_a_step_cannot_be_compiled(monkeypatch):
    take_as_worth(monkeypatch, 0.0)
    family, last = reader(steps=60)
    assert family.calls >= 60
    assert last.finished == "completed"


@pytest.mark.parametrize(("worth", "compiled"), [(0.0, True), (1e9, False)])
def test_auto_decides_by_the_time_that_is_left(monkeypatch, worth, compiled):
    made = []
    take_as_worth(monkeypatch, worth)
    monkeypatch.setattr("everymode.training.run.Compiled", lambda *a, **k: made.append(k) or (lambda *given: None))
    y, x = table()
    family = get_family("mse").build(UNIT, ONE, seed=0, width=16)
    *_, last = train(family, y, x, settings=TrainingSettings(steps=80, batch_size=64))
    assert bool(made) is compiled
    assert last.compiled is compiled


def test_without_a_compiler_long_runs_go_call_by_call_and_asking_for_it_names_the_mend(monkeypatch):
    take_as_worth(monkeypatch, 0.0)
    monkeypatch.setenv("CXX", "no-such-compiler")
    family, last = reader(steps=60)
    assert (family.calls, last.compiled) == (60, False)
    with pytest.raises(SettingError, match=r"compile=True needs a C\+\+ compiler .* Leave compile at 'auto'"):
        reader(compile=True)


def test_short_runs_are_not_compiled():
    y, x = table()
    family = get_family("mse").build(UNIT, ONE, seed=0, width=16)
    *_, last = train(family, y, x, settings=TrainingSettings(steps=80, batch_size=64))
    assert last.compiled is False


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_compile_is_true_false_or_auto(value):
    with pytest.raises(SettingError, match=r"compile=.+: give True, False or 'auto'"):
        TrainingSettings(compile=value)


@needs_compiler
def test_a_compiled_run_goes_on_as_if_it_had_not_stopped(tmp_path):
    y, x = table()
    settings = TrainingSettings(steps=40, batch_size=64, compile=True, checkpoint_every=10, validate_every=10)

    def family():
        return get_family("flow_matching").build(UNIT, ONE, seed=0, width=16)

    whole, cut, resumed = family(), family(), family()
    list(train(whole, y, x, settings=settings))
    asked = iter([False] * 23 + [True] * 100)
    list(train(cut, y, x, settings=settings, folder=tmp_path, interrupted=lambda: next(asked)))
    list(train(resumed, y, x, settings=settings, folder=tmp_path, resume=True))
    for mine, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert not torch.equal(next(cut.parameters()), next(whole.parameters()))


@needs_cuda
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("name", BY_GRADIENT)
def test_a_graph_gives_the_weights_of_steps_call_by_call(name, precision, monkeypatch):
    found, run = states(name, device="cuda", precision=precision)
    assert all(step.graph is not None for step in run._steps.values())
    monkeypatch.setattr("everymode.training.step._CALLS_BEFORE_RECORDING", 10**9)
    wanted, run = states(name, device="cuda", precision=precision)
    assert all(step.graph is None for step in run._steps.values())
    assert_close(found, wanted, tolerance=0.0)


@needs_cuda
def test_a_step_that_waits_for_the_device_is_made_call_by_call():
    y, x = table()
    family = Reader().cuda()
    *_, last = train(family, y[:, :1], x, settings=TrainingSettings(steps=20, batch_size=64), device="cuda")
    assert family.calls >= 20
    assert last.finished == "completed"


@needs_cuda
@pytest.mark.parametrize("compiled", ["auto", True])
def test_a_run_on_a_gpu_goes_on_as_if_it_had_not_stopped(tmp_path, compiled):
    y, x = table()
    settings = TrainingSettings(steps=40, batch_size=64, compile=compiled, checkpoint_every=10, validate_every=10)

    def family():
        return get_family("flow_matching").build(UNIT, ONE, seed=0, width=16)

    whole, cut, resumed = family(), family(), family()
    list(train(whole, y, x, settings=settings, device="cuda"))
    asked = iter([False] * 23 + [True] * 100)
    list(train(cut, y, x, settings=settings, device="cuda", folder=tmp_path, interrupted=lambda: next(asked)))
    list(train(resumed, y, x, settings=settings, device="cuda", folder=tmp_path, resume=True))
    for mine, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@needs_cuda
@pytest.mark.parametrize("name", names())
def test_every_family_is_fitted_and_drawn_from_on_a_gpu(name):
    x, y = em.problems.get("fork").sample(300, seed=0)
    model = em.OneToManyRegressor(name, steps=60, width=16, device="cuda", random_state=0).fit(x, y)
    draws = model.sample(x[:3], 5)
    assert draws.shape == (3, 5, *y.shape[1:])
    assert abs(draws).max() < 100
