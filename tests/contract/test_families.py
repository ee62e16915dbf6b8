"""One contract for every family that is registered, on every kind of y that it claims and every kind of x."""

from __future__ import annotations

import inspect
import json
from typing import ClassVar

import numpy as np
import pytest
import torch

import everymode as em
from everymode import families
from everymode.control import Control
from everymode.errors import SettingError, UnsupportedError
from everymode.families import Abilities, Family, get_family
from everymode.inpainting import Known
from everymode.metrics import modes_found, valid_share
from everymode.randomness import Common, Shard, new_generator
from everymode.spaces import (
    DictSpace,
    ImageSpace,
    LabelSpace,
    SequenceSpace,
    TableSpace,
    VectorSpace,
    array_space,
    space_from_dict,
    take_rows,
)
from everymode.training import TrainingSettings, read_tensors, train, write_tensors

ROWS, KNOWN = 6, 60
Y_SHAPES = {"vector": (2,), "sequence": (16, 2), "image": (1, 8, 8)}
X_KINDS = ("vector", "label", "table", "dict")
NAMES = families.names()
CASES = [
    (name, y_kind, x_kind)
    for name in NAMES
    for y_kind in get_family(name).abilities.spaces
    for x_kind in X_KINDS
    if y_kind in Y_SHAPES
]


def random_y(kind, rows=KNOWN, seed=0):
    return np.random.default_rng(seed).normal(1, 2, (rows, *Y_SHAPES[kind]))


def space_and_x(kind, rows=KNOWN, seed=1):
    """A space and raw values of x."""
    rng = np.random.default_rng(seed)
    numbers, letters = rng.normal(3, 5, (rows, 3)), np.array(list("abc" * rows))[:rows]
    if kind == "vector":
        return VectorSpace.fit(numbers), numbers
    if kind == "label":
        return LabelSpace.fit(letters), letters
    if kind == "table":
        table = {"size": numbers[:, 0], "letter": letters, "age": numbers[:, 1], "code": np.arange(rows) % 2}
        return TableSpace.fit(table, categorical=["letter", "code"]), table
    parts = {"state": numbers, "camera": rng.normal(size=(rows, 3, 8, 8)), "past": rng.normal(size=(rows, 4, 2))}
    spaces = {key: array_space(value) for key, value in parts.items()}
    return DictSpace({**spaces, "task": LabelSpace.fit(letters)}), {**parts, "task": letters}


class Case:
    """A small built family that has looked at the data, and some standardised rows of them."""

    def __init__(self, name, y_kind, x_kind):
        raw = random_y(y_kind)
        self.y_space = array_space(raw)
        self.x_space, raw_x = space_and_x(x_kind)
        self.known = self.y_space.encode(raw), self.x_space.encode(raw_x)
        self.y, self.x = (take_rows(part, torch.arange(ROWS)) for part in self.known)
        self.name = name
        self.family = self.know(self.build(seed=0), seed=0)

    def build(self, seed, settings=None):
        family = get_family(self.name, settings)
        return family.build(self.y_space, self.x_space, seed=seed, width=16, depth=1).eval()

    def know(self, family, seed):
        """Show a family the data, as training does before its first step."""
        with torch.no_grad():
            if family.abilities.gradient:
                family.prepare(*self.known, seed=seed)
            else:
                shares = [share for share, *_ in family.solve(*self.known, held_out=None, seed=seed, seconds=None)]
                assert shares[-1] == 1
        return family

    def stir(self):
        """Move the layers that start near zero away from it, so that x counts."""
        with torch.no_grad():
            for parameter in self.family.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=new_generator(7))

    def losses(self, part, y=None, x=None, source=None):
        y, x = self.y if y is None else y, self.x if x is None else x
        return part.loss(y, x, generator=new_generator(3) if source is None else source)

    def draws(self, family=None, n=3, seed=4):
        with torch.inference_mode():
            return (family or self.family).sample(self.x, n, generator=new_generator(seed))


@pytest.fixture
def case(request):
    return Case(*request.param)


every_case = pytest.mark.parametrize("case", CASES, ids="-".join, indirect=True)
every_name = pytest.mark.parametrize("name", NAMES)


# Losses ------------------------------------------------------------------------------------------------------------


@every_case
def test_a_loss_for_every_row(case):
    parts = case.family.parts()
    assert len({part.name for part in parts}) == len(parts)
    assert bool(parts) == case.family.abilities.gradient
    for part in parts:
        losses = case.losses(part)
        assert losses.shape == (ROWS,)
        assert losses.dtype == torch.float32
        assert torch.isfinite(losses).all()
        assert losses.detach().std() > 0  # rows differ
        assert torch.equal(losses, case.losses(part))


@every_case
def test_the_loss_of_a_row_is_its_own(case):
    """With the noise held, a change of row 2's y or x moves row 2's loss and no other's.

    A batch is one product of matrices, whose rows may be rounded differently: hence 1e-5, not 0. Layers that start
    near zero are moved away from it, so that x counts.
    """
    case.stir()
    rest = torch.arange(ROWS) != 2
    for part in case.family.parts():
        before = case.losses(part).detach()
        if not part.given:
            torch.testing.assert_close(case.losses(part, y=case.y + 1).detach(), before)
            continue

        def moved(part=part, before=before, **changed):
            after = case.losses(part, **changed).detach()
            torch.testing.assert_close(after[rest], before[rest], rtol=1e-5, atol=1e-5)
            return abs(float(after[2] - before[2]))

        y = case.y.clone()
        y[2] += 1.0
        assert moved(y=y) > 1e-4
        # of another label, and other numbers; one other x may by chance be as good for this y
        assert max(moved(x=take_rows(case.x, torch.tensor([0, 1, other, 3, 4, 5]))) for other in (0, 1, 4)) > 1e-4


@every_case
def test_gradients_reach_every_parameter(case):
    trained = set()
    for part in case.family.parts():
        case.family.zero_grad()
        for seed in range(3):
            case.losses(part, source=new_generator(seed)).mean().backward()
        for name, parameter in part.module.named_parameters():
            if parameter.requires_grad:
                trained.add(id(parameter))
                assert parameter.grad is not None, f"{part.name}: {name} takes no part"
                assert torch.isfinite(parameter.grad).all(), f"{part.name}: {name}"
                assert parameter.grad.abs().max() > 0, f"{part.name}: {name} gets no gradient"
    left = [name for name, p in case.family.named_parameters() if p.requires_grad and id(p) not in trained]
    assert not left, f"no part trains {left}"


@every_case
def test_two_processes_see_what_one_sees(case):
    """Each rank of a Shard has the losses of its own half of the batch, to rounding."""
    half = ROWS // 2
    for part in case.family.parts():
        whole = case.losses(part).detach()
        for rank in range(2):
            rows = slice(rank * half, (rank + 1) * half)
            shard = Shard(new_generator(3), rank, 2)
            mine = case.losses(part, case.y[rows], take_rows(case.x, rows), shard).detach()
            torch.testing.assert_close(mine, whole[rows], rtol=1e-5, atol=1e-5)


# Draws -------------------------------------------------------------------------------------------------------------


@every_case
def test_draws_have_the_shape_of_y_and_follow_the_generator(case):
    draws = case.draws(n=3)
    assert draws.shape == (3 * ROWS, *case.y_space.shape)
    assert torch.isfinite(draws).all()
    assert torch.equal(draws, case.draws(n=3))
    several = case.family.abilities.several
    by_row = draws.unflatten(0, (ROWS, 3))
    if several:
        assert not torch.equal(draws, case.draws(n=3, seed=5))
        assert (by_row.std(dim=1) > 0).flatten(1).any(dim=1).all()
    else:
        assert torch.equal(draws, case.draws(n=3, seed=5))
        torch.testing.assert_close(by_row, by_row[:, :1].expand_as(by_row), rtol=1e-5, atol=1e-6)
    assert case.family.nfe >= 1


@every_case
def test_draws_of_a_row_lie_side_by_side_and_are_its_own(case):
    """With noise in common, rows 3 i to 3 i + 2 are what row i is answered alone."""
    with torch.inference_mode():
        together = case.family.sample(case.x, 3, generator=Common(new_generator(4), 3))
        for row in range(ROWS):
            x = take_rows(case.x, slice(row, row + 1))
            alone = case.family.sample(x, 3, generator=Common(new_generator(4), 3))
            assert alone.shape == (3, *case.y_space.shape)
            torch.testing.assert_close(together[3 * row : 3 * row + 3], alone, rtol=1e-4, atol=1e-4)


@every_case
def test_draws_depend_on_x(case):
    """With the generator held, other rows of x give other draws."""
    case.stir()
    other = take_rows(case.x, torch.arange(ROWS).roll(1))
    with torch.inference_mode():
        moved = case.family.sample(other, 3, generator=new_generator(4))
    assert not torch.allclose(moved, case.draws(n=3), rtol=0, atol=1e-6)


@every_case
def test_saved_and_read_it_gives_the_same_draws(case, tmp_path):
    header = {
        "settings": case.family.settings(),
        "y_space": case.y_space.to_dict(),
        "x_space": case.x_space.to_dict(),
    }
    path = write_tensors(tmp_path / "model.safetensors", case.family.state_dict(), header, kind="model")
    tensors, header = read_tensors(path, kind="model")
    assert space_from_dict(header["x_space"]) == case.x_space
    assert space_from_dict(header["y_space"]) == case.y_space
    again = case.build(seed=1, settings=header["settings"])
    if again.abilities.gradient:
        assert not torch.equal(case.draws(case.know(again, seed=1)), case.draws())  # another seed, other weights
    again.load_state_dict(tensors)
    assert torch.equal(case.draws(again), case.draws())


# Abilities ---------------------------------------------------------------------------------------------------------


@every_case
def test_what_is_declared_is_there_and_nothing_else(case):
    family, abilities, times = case.family, case.family.abilities, torch.linspace(0, 1, 4, dtype=torch.float64)

    def velocity():
        return [family.velocity(case.y, torch.tensor(t), case.x) for t in (0.2, 0.7)]

    def trajectory():
        return list(family.trajectory(case.x, times, generator=new_generator(0)))

    with torch.no_grad():
        for declared, ability in (
            (abilities.velocity, velocity),
            (abilities.trajectory, trajectory),
            (abilities.density, lambda: family.log_prob(case.y, case.x)),
        ):
            if not declared:
                with pytest.raises(UnsupportedError, match=f"{case.name!r}"):
                    ability()
        if abilities.velocity:
            early, late = velocity()
            assert early.shape == late.shape == case.y.shape
            assert torch.isfinite(early).all()
            assert not torch.equal(early, late)
            each = family.velocity(case.y, torch.full((ROWS,), 0.2), case.x)
            torch.testing.assert_close(each, early)
        if abilities.trajectory:
            states = trajectory()
            assert [t for t, _ in states] == times.tolist()
            assert all(y_t.shape == case.y.shape and torch.isfinite(y_t).all() for _, y_t in states)
            again = trajectory()
            assert all(torch.equal(a, b) for (_, a), (_, b) in zip(states, again, strict=True))
        if abilities.density:
            log_prob = family.log_prob(case.y, case.x)
            assert log_prob.shape == (ROWS,)
            assert torch.isfinite(log_prob).all()


@pytest.mark.parametrize("case", [case for case in CASES if case[2] == "vector"], ids="-".join, indirect=True)
def test_draws_are_controlled_where_that_is_declared(case):
    """Draws with a temperature or with known values are finite, follow the generator, and keep what is known."""
    family, abilities = case.family, case.family.abilities
    embedding = family.encode(case.x)
    mask = torch.zeros_like(case.y, dtype=torch.bool)
    mask[..., 0] = True
    asked = {
        "temperature": Control(temperature=0.5),
        "steered": Control(Known(case.y, mask, resamplings=2)),
    }
    for ability, control in asked.items():
        if getattr(abilities, ability):
            with torch.inference_mode():
                draws = [family.controlled(embedding, control, generator=new_generator(seed)) for seed in (0, 0, 1)]
            assert draws[0].shape == case.y.shape
            assert torch.isfinite(draws[0]).all()
            assert torch.equal(draws[0], draws[1])
            assert not torch.equal(draws[0], draws[2])
            if ability == "steered":
                assert torch.equal(draws[0][mask], case.y[mask])
    if not (abilities.temperature or abilities.steered):
        with pytest.raises(UnsupportedError, match=f"{case.name!r}"):
            family.controlled(embedding, asked["temperature"])


DENSE = [n for n in NAMES if get_family(n).abilities.density and "vector" in get_family(n).abilities.spaces]


@pytest.mark.parametrize("name", DENSE)
def test_densities_integrate_to_one(name):
    """By the midpoint rule on 241 x 241 cells of side .1: nothing of an untrained density is sharper or farther."""
    case = Case(name, "vector", "vector")
    line = torch.linspace(-12, 12, 241)
    grid = torch.cartesian_prod(line, line)
    with torch.no_grad():
        log_prob = case.family.log_prob(grid, take_rows(case.x, torch.zeros(len(grid), dtype=torch.long)))
    assert float(log_prob.double().exp().sum()) * 0.1**2 == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", DENSE)
def test_outside_every_answer_a_density_is_finite_and_very_low(name):
    case = Case(name, "vector", "vector")
    far = torch.tensor([[30.0, -30.0], [1e4, 1e4], [1e8, -1e8]])
    with torch.no_grad():
        log_prob = case.family.log_prob(far, take_rows(case.x, torch.zeros(len(far), dtype=torch.long)))
    assert torch.isfinite(log_prob).all()
    assert torch.all(log_prob < -20)


@every_name
def test_a_kind_of_y_that_is_not_modelled_is_refused(name):
    family = get_family(name)
    if not family.abilities.own_network:
        with pytest.raises(UnsupportedError, match="network"):
            Case(name, "vector", "vector").family.build(
                array_space(random_y("vector")), VectorSpace.fit(np.zeros((2, 1))), network=lambda shape, width: None
            )
    for kind in set(Y_SHAPES) - set(family.abilities.spaces):
        assert family.abilities.why_not, "a kind that is left out needs a reason"
        with pytest.raises(UnsupportedError, match=kind):
            family.build(array_space(random_y(kind)), VectorSpace.fit(np.zeros((2, 1))))


class OnlyVectors(Family):
    """A family that does nothing, and that on vectors only."""

    name: ClassVar[str] = "only_vectors"
    abilities: ClassVar[Abilities] = Abilities(spaces=("vector",), why_not="Use flow_matching.")


@pytest.mark.parametrize("space", [SequenceSpace, ImageSpace])
def test_the_refusal_names_what_is_modelled_and_what_was_asked_for(space):
    y_space = space.fit(random_y(space.kind))
    with pytest.raises(
        UnsupportedError, match=rf"'only_vectors' models vector targets, not a {space.kind}\. Use flow_matching\."
    ):
        OnlyVectors().build(y_space, VectorSpace.fit(np.zeros((2, 1))))
    built = OnlyVectors().build(VectorSpace.fit(random_y("vector")), VectorSpace.fit(np.zeros((2, 1))), width=8)
    for ability in (
        lambda: built.log_prob(torch.zeros(1, 2), torch.zeros(1, 1)),
        lambda: built.velocity(torch.zeros(1, 2), torch.zeros(1), torch.zeros(1, 1)),
        lambda: built.trajectory(torch.zeros(1, 1), torch.zeros(2)),
    ):
        with pytest.raises(UnsupportedError, match="only_vectors"):
            ability()


# Settings ----------------------------------------------------------------------------------------------------------


class NoSetting:
    """A value that no setting allows."""


SETTINGS = [(name, setting) for name in NAMES for setting in type(get_family(name)).setting_names()]


@every_name
def test_settings_are_read_and_written_back(name):
    family = get_family(name)
    params = family.get_params()
    kind = type(family)
    assert list(params) == kind.setting_names()
    defaults = {p.name: p.default for p in inspect.signature(kind).parameters.values()}
    assert params == defaults
    assert repr(family) == f"{kind.__name__}()"
    assert kind(**params).get_params() == params
    assert family.set_params(**params) is family
    assert family.get_params() == params
    saved = json.loads(json.dumps(family.settings(), allow_nan=False))
    assert get_family(name, saved).settings() == family.settings()
    assert get_family(family) is family


@every_name
def test_unknown_settings_are_named(name):
    with pytest.raises(SettingError, match=f"setting of family '{name}' 'no_such_setting'"):
        get_family(name, {"no_such_setting": 1})
    with pytest.raises(SettingError, match=f"setting of family '{name}' 'no_such_setting'"):
        get_family(name).set_params(no_such_setting=1)


@pytest.mark.parametrize(("name", "setting"), SETTINGS)
def test_wrong_settings_are_named(name, setting):
    family = get_family(name)
    before = family.get_params()
    with pytest.raises(SettingError, match=setting):
        get_family(name, {setting: NoSetting()})
    with pytest.raises(SettingError, match=setting):
        family.set_params(**{setting: NoSetting()})
    assert family.get_params() == before


@every_name
def test_a_family_without_parameters_says_so(name):
    with pytest.raises(SettingError, match="build"):
        _ = get_family(name).event


@pytest.mark.parametrize(("settings", "wrong"), [({"path": "cosine", "steps": 4}, "steps"), ({"path": "vp"}, "path")])
def test_settings_change_all_or_none(settings, wrong):
    family = em.FlowMatching()
    with pytest.raises(SettingError, match=wrong):
        family.set_params(**{**settings, wrong: "no such value"})
    assert family.get_params() == em.FlowMatching().get_params()


def test_a_changed_setting_is_what_is_saved():
    changed, made = em.FlowMatching().set_params(path="cosine"), em.FlowMatching(path="cosine")
    assert changed.get_params() == made.get_params()
    assert changed.settings() == made.settings()


def test_unknown_families_are_refused_with_the_nearest():
    with pytest.raises(SettingError, match="'flow_matching'"):
        get_family("flow_maching")


# Fitting -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fork_draws():
    """From a family's name to its draws for 200 new rows of the fork: each is trained once, for some seconds."""
    problem, kept = em.problems.get("fork"), {}
    x, y = problem.sample(2000, seed=0)
    fresh = problem.sample_x(200, seed=1)
    x_space, y_space = VectorSpace.fit(x), VectorSpace.fit(y)

    def draws(name):
        if name not in kept:
            family = get_family(name).build(y_space, x_space, width=64, depth=2)
            for _ in train(family, y_space.encode(y), x_space.encode(x), settings=TrainingSettings(steps=1000)):
                pass
            with torch.inference_mode():
                drawn = family.eval().sample(x_space.encode(fresh), 20, generator=new_generator(2))
            kept[name] = y_space.decode(drawn).reshape(200, 20, 2)
        return problem, fresh, kept[name]

    return draws


@pytest.mark.parametrize("name", [n for n in NAMES if get_family(n).abilities.modes])
def test_a_family_of_several_answers_beats_the_average_on_the_fork(name, fork_draws):
    """Nearly all draws are valid and both answers are found, where regression has no valid answer at all."""
    average = valid_share(*fork_draws("mse"))
    assert average.value == 0
    problem, x, draws = fork_draws(name)
    share = valid_share(problem, x, draws)
    assert share.low > max(0.7, average.high)
    assert modes_found(problem, x, draws) == (2, 2)


@pytest.mark.parametrize("name", [n for n in NAMES if not get_family(n).abilities.modes])
def test_a_family_of_one_answer_finds_at_most_one_of_two(name, fork_draws):
    """One that draws from a single mode may be wide enough to reach both answers: most of its draws are then none."""
    problem, x, draws = fork_draws(name)
    found, total = modes_found(problem, x, draws)
    assert total == 2
    assert found < 2 or (get_family(name).abilities.several and valid_share(problem, x, draws).high < 0.5)
