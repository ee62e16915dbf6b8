"""Spaces: standardisation and its inverse, its Jacobian, categories, JSON, and what is refused."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from everymode.errors import DataError
from everymode.spaces import (
    DictSpace,
    ImageSpace,
    LabelSpace,
    PixelSpace,
    SequenceSpace,
    SetSpace,
    TableSpace,
    VectorSpace,
    array_space,
    count_rows,
    place,
    repeat_rows,
    space_from_dict,
    take_rows,
)

SHAPES = {VectorSpace: (5,), SequenceSpace: (4, 3), SetSpace: (4, 3), ImageSpace: (3, 4, 2)}
# standard normal numbers of single precision are wrong by 6e-8 of their size, which is 5 at most
ROUNDING = 4e-7


def values_of(shape, rows=200, seed=0):
    """Channels of very different shifts and scales: on the last axis, of images on the first."""
    rng = np.random.default_rng(seed)
    channels = shape[0] if len(shape) == 3 else shape[-1]
    spread, shift = 10.0 ** np.arange(-2, channels - 2), 100.0 * np.arange(channels) - 150
    if len(shape) == 3:
        spread, shift = spread[:, None, None], shift[:, None, None]
    return shift + spread * rng.standard_normal((rows, *shape))


@pytest.fixture(params=SHAPES, ids=lambda kind: kind.kind)
def kind(request):
    return request.param


@pytest.fixture
def values(kind):
    return values_of(SHAPES[kind])


@pytest.fixture
def space(kind, values):
    return kind.fit(values)


def test_decode_inverts_encode(space, values):
    encoded = space.encode(values)
    assert encoded.dtype == torch.float32
    assert encoded.shape == values.shape
    again = space.decode(encoded)
    assert again.dtype == np.float64
    scale = np.broadcast_to(space._channels(space.scale), values.shape)
    assert np.all(np.abs(again - values) <= ROUNDING * scale)
    torch.testing.assert_close(space.encode(again), encoded, rtol=0, atol=1e-6)


def test_decode_takes_any_leading_axes(space, values):
    encoded = space.encode(values[:12])
    stacked = space.decode(encoded.unflatten(0, (3, 2, 2)))
    np.testing.assert_array_equal(stacked.reshape(12, *space.shape), space.decode(encoded))


def test_each_channel_is_standardised(space, values):
    axis = 1 if isinstance(space, ImageSpace) else -1
    encoded = space.encode(values).double().movedim(axis, -1).flatten(0, -2)
    assert encoded.shape[1] == len(space.scale)
    torch.testing.assert_close(encoded.mean(0), torch.zeros_like(encoded[0]), rtol=0, atol=1e-6)
    torch.testing.assert_close(encoded.square().mean(0), torch.ones_like(encoded[0]), rtol=1e-6, atol=0)


def test_log_jacobian_is_that_of_autograd(space):
    """slogdet of the Jacobian of encode: minus that of decode's map, which is written again in torch here."""
    shift, scale = (torch.from_numpy(space._channels(part)) for part in (space.shift, space.scale))
    point = torch.from_numpy(values_of(space.shape, rows=1, seed=1)[0])
    jacobian = torch.autograd.functional.jacobian(lambda y: (y - shift) / scale, point)
    log_determinant = torch.linalg.slogdet(jacobian.reshape(space.size, space.size))[1]
    assert space.log_jacobian == pytest.approx(float(log_determinant), rel=1e-12)
    # and encode is that map
    torch.testing.assert_close(
        space.encode(point[None].numpy())[0].double(), (point - shift) / scale, rtol=1e-6, atol=1e-6
    )


def test_log_jacobian_is_that_of_encode_itself(space):
    """Encode moves float64 points by finite steps: large ones, since the map is affine."""
    point = values_of(space.shape, rows=1, seed=2)[0]
    step = 64.0 * np.broadcast_to(space._channels(space.scale), space.shape)
    moved = space.encode(np.stack([point - step, point + step])).double()
    slopes = (moved[1] - moved[0]) / torch.from_numpy(2 * step)
    assert float(slopes.log().sum()) == pytest.approx(space.log_jacobian, abs=1e-5)


def test_a_density_of_encoded_values_becomes_one_of_values():
    """log N(y; m, diag s^2) = log N(encode(y); 0, I) + log_jacobian."""
    space = VectorSpace((3,), (1.0, -2.0, 5.0), (0.1, 3.0, 20.0))
    y = values_of((3,), rows=10)
    encoded = torch.distributions.Normal(0.0, 1.0).log_prob(space.encode(y).double()).sum(1) + space.log_jacobian
    direct = torch.distributions.Normal(torch.tensor(space.shift).double(), torch.tensor(space.scale).double())
    torch.testing.assert_close(encoded, direct.log_prob(torch.from_numpy(y)).sum(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("constant", [0.0, 7.0, 0.1, -1e6, 1e-8])
def test_a_constant_column_keeps_a_scale_of_one(constant):
    values = np.random.default_rng(0).standard_normal((333, 2))
    values[:, 1] = constant
    space = VectorSpace.fit(values)
    assert space.scale[1] == 1
    torch.testing.assert_close(space.encode(values)[:, 1], torch.zeros(333), rtol=0, atol=1e-6)
    assert space.encode([[0.0, constant + 2]])[0, 1] == pytest.approx(2)
    assert space.log_jacobian == pytest.approx(-math.log(space.scale[0]))


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_a_column_in_other_units_is_no_constant(factor):
    values = np.random.default_rng(0).standard_normal((100, 1))
    assert VectorSpace.fit(factor * values).scale[0] == pytest.approx(factor * VectorSpace.fit(values).scale[0])


def test_no_columns_and_no_rows():
    nothing = VectorSpace((0,), (), ())
    assert nothing.encode(np.zeros((4, 0))).shape == (4, 0)
    assert nothing.log_jacobian == 0
    assert VectorSpace.fit(np.zeros((0, 2))).scale == (1.0, 1.0)


def test_a_table_without_columns_has_a_space():
    assert VectorSpace.fit(np.zeros((4, 0))) == VectorSpace((0,), (), ())


def test_the_rank_chooses_the_space():
    for kind, shape in SHAPES.items():
        told = SequenceSpace if kind is SetSpace else kind  # no array shows that its points stand in no order
        assert type(array_space(values_of(shape))) is told
    for shape in ((5,), (5, 1, 1, 1, 1)):
        with pytest.raises(DataError, match=r"\(5,.*\(rows, d\)"):
            array_space(np.zeros(shape))


# What is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bad_cells_are_named_by_row_and_column(bad):
    values = values_of((3,), rows=10)
    space = VectorSpace.fit(values, ("height", "width", "depth"))
    values[[2, 7], 1] = bad
    for action in (lambda: VectorSpace.fit(values, ("height", "width", "depth")), lambda: space.encode(values)):
        with pytest.raises(DataError, match=r"2 row\(s\), the first at 2, 7; column\(s\) width\b") as caught:
            action()
        assert "height" not in str(caught.value)
    with pytest.raises(DataError, match=r"column\(s\) column 1\b"):
        VectorSpace.fit(values)


@pytest.mark.parametrize("kind", [SequenceSpace, ImageSpace], ids=lambda kind: kind.kind)
def test_bad_cells_of_larger_events_are_named_by_row(kind):
    values = values_of(SHAPES[kind], rows=10)
    values[4].flat[3] = np.nan
    with pytest.raises(DataError, match=r"1 row\(s\), the first at 4\b"):
        kind.fit(values)


def test_wrong_shapes_are_refused_with_both_named(space, values):
    with pytest.raises(DataError) as caught:
        space.encode(values[..., :-1])
    assert str(values[..., :-1].shape) in str(caught.value)
    assert str(space.shape) in str(caught.value)
    with pytest.raises(DataError, match="each row must have shape"):
        space.encode(values[0])


def test_text_among_numbers_is_refused():
    with pytest.raises(DataError, match="text"):
        VectorSpace((2,), (0, 0), (1, 1)).encode([["1.0", "tall"]])


@pytest.mark.parametrize(
    ("shift", "scale", "message"),
    [
        ((0.0,), (1.0, 1.0), "1 shift"),
        ((0.0, 0.0), (1.0, 0.0), "positive"),
        ((0.0, 0.0), (1.0, math.nan), "positive"),
    ],
)
def test_bad_standardisation_is_refused(shift, scale, message):
    with pytest.raises(DataError, match=message):
        VectorSpace((2,), shift, scale)


# Categories --------------------------------------------------------------------------------------------------------

COLORS = np.array(["red", "blue", "green", "blue"])
TABLE = {"size": np.array([1.0, 2.0, 4.0, 3.0]), "color": COLORS, "code": np.array([7, 7, 3, 10])}


def test_labels_are_coded_in_order():
    space = LabelSpace.fit(COLORS)
    assert space.categories == ("blue", "green", "red")
    codes = space.encode(COLORS)
    assert codes.dtype == torch.int64
    assert codes.tolist() == [2, 0, 1, 0]
    numbers = LabelSpace.fit(np.array([10, 3, 7, 3]))
    assert numbers.categories == (3, 7, 10)
    assert all(type(c) is int for c in numbers.categories)
    assert numbers.encode(np.array([10, 3], dtype=np.int32)).tolist() == [2, 0]


def test_tables_hold_numbers_and_codes_apart():
    space = TableSpace.fit(TABLE, categorical=["color", "code"])
    assert space.names == ("size", "color", "code")
    encoded = space.encode(TABLE)
    deviation = TABLE["size"].std()
    expected = torch.from_numpy((TABLE["size"] - 2.5) / deviation).float()[:, None]
    torch.testing.assert_close(encoded["numeric"], expected)
    assert encoded["categorical"].tolist() == [[2, 1], [0, 1], [1, 0], [0, 2]]
    assert encoded["categorical"].dtype == torch.int64
    only_numbers = TableSpace.fit({"a": [1.0, 2.0]}, []).encode({"a": [1.0, 2.0]})
    assert only_numbers["categorical"].shape == (2, 0)
    only_codes = TableSpace.fit({"a": ["u", "v"]}, ["a"]).encode({"a": ["u", "v"]})
    assert only_codes["numeric"].shape == (2, 0)


def test_unseen_categories_are_named_with_the_nearest_and_the_column():
    labels = LabelSpace.fit(COLORS)
    with pytest.raises(DataError, match=r"'gren'.*nearest known: green.*Known: blue, green, red"):
        labels.encode(["red", "gren"])
    table = TableSpace.fit(TABLE, categorical=["color", "code"])
    with pytest.raises(DataError, match=r"column 'code'.*'8'.*Known: 3, 7, 10"):
        table.encode({**TABLE, "code": np.array([7, 8, 3, 10])})


def test_bad_numbers_of_a_table_are_named():
    table = TableSpace.fit(TABLE, categorical=["color", "code"])
    with pytest.raises(DataError, match=r"the first at 2; column\(s\) size"):
        table.encode({**TABLE, "size": np.array([1.0, 2.0, np.nan, 3.0])})
    with pytest.raises(DataError, match="'size' holds text"):
        table.encode({**TABLE, "size": np.array(["1", "2", "tall", "3"])})


def test_parts_of_x_are_encoded_by_name():
    space = DictSpace({"state": VectorSpace((2,), (1.0, 1.0), (2.0, 2.0)), "goal": LabelSpace(("a", "b"))})
    encoded = space.encode({"goal": ["b", "a"], "state": [[1.0, 3.0], [5.0, 1.0]]})
    assert list(encoded) == ["state", "goal"]
    assert encoded["goal"].tolist() == [1, 0]
    assert encoded["state"].tolist() == [[0.0, 1.0], [2.0, 0.0]]
    with pytest.raises(DataError, match="x lacks goal; it must hold state, goal"):
        space.encode({"state": [[1.0, 3.0]]})
    with pytest.raises(DataError, match="part 'table' of x is a table"):
        DictSpace({"table": TableSpace.fit(TABLE, ["color"])}).encode({"table": TABLE})


# JSON --------------------------------------------------------------------------------------------------------------

ROUND_TRIPS = {
    "vector": VectorSpace.fit(values_of((5,)), tuple("abcde")),
    "sequence": SequenceSpace.fit(values_of((4, 3))),
    "image": ImageSpace.fit(values_of((3, 4, 2))),
    "no columns": VectorSpace((0,), (), ()),
    "labels": LabelSpace.fit(COLORS),
    "numbered labels": LabelSpace.fit(np.array([3, 1, 2])),
    "truth": LabelSpace.fit(np.array([True, False])),
    "table": TableSpace.fit(TABLE, categorical=["color", "code"]),
    "nested": DictSpace(
        {
            "camera": ImageSpace.fit(values_of((3, 4, 2))),
            "inner": DictSpace({"past": SequenceSpace.fit(values_of((4, 3))), "task": LabelSpace.fit(COLORS)}),
            "row": TableSpace.fit(TABLE, categorical=["color"]),
        }
    ),
}


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_json_makes_the_space_again(name):
    space = ROUND_TRIPS[name]
    again = space_from_dict(json.loads(json.dumps(space.to_dict(), allow_nan=False)))
    assert type(again) is type(space)
    assert again == space
    assert again.to_dict() == space.to_dict()


def test_a_space_from_json_encodes_to_the_same_bits():
    values = values_of((5,))
    for space, data in (
        (ROUND_TRIPS["vector"], values),
        (ROUND_TRIPS["labels"], COLORS),
        (ROUND_TRIPS["table"], TABLE),
    ):
        again = space_from_dict(json.loads(json.dumps(space.to_dict())))
        one, other = space.encode(data), again.encode(data)
        pairs = [(one[key], other[key]) for key in one] if isinstance(one, dict) else [(one, other)]
        assert all(torch.equal(a, b) for a, b in pairs)


# Windows of observations and actions -------------------------------------------------------------------------------


@pytest.mark.parametrize("low", [-np.pi, 0.0, 17.0])
def test_angles_come_back_in_the_turn_that_they_were_told_in(low):
    rng = np.random.default_rng(0)
    steps = np.column_stack([rng.normal(3, 2, 500), rng.uniform(low, low + 2 * np.pi, 500), rng.normal(size=500)])
    space = SequenceSpace.over(steps, 4, angles=(1,))
    events = steps.reshape(-1, 4, 3)
    encoded = space.encode(events)
    assert encoded.shape == (125, *space.shape) == (125, 4, 4)
    np.testing.assert_allclose(encoded.flatten(0, 1)[:, :2].std(0, unbiased=False), [1, 1], atol=1e-5)
    np.testing.assert_allclose(encoded[..., 2:].square().sum(-1), 1, atol=1e-6)  # sine and cosine
    decoded = space.decode(encoded)
    away = np.abs(decoded - events)
    seam = np.abs(events[..., 1] - low - np.pi) > np.pi - 1e-3  # there rounding may turn it once round
    assert away[..., [0, 2]].max() < 1e-5
    assert away[..., 1][~seam].max() < 1e-5
    turned = space.encode(events + np.asarray([0, 2 * np.pi, 0]))
    torch.testing.assert_close(turned, encoded, atol=1e-5, rtol=0)


def test_an_angle_is_near_to_itself_a_turn_away():
    space = SequenceSpace.over(np.linspace(0, 2 * np.pi, 50)[:, None], 1, angles=(0,))
    one, other = space.encode(np.asarray([[[1e-3]], [[2 * np.pi - 1e-3]]]))
    assert (one - other).norm() == pytest.approx(2e-3, rel=1e-3)
    with pytest.raises(DataError, match=r"shape \(1, 1, 2\), but each row must have shape \(1, 1\)"):
        space.encode(np.zeros((1, 1, 2)))
    with pytest.raises(DataError, match="NaN or infinite"):
        space.encode(np.full((1, 1, 1), np.inf))


def test_pictures_stay_bytes_with_their_channels_first():
    pictures = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 4, 1), dtype=np.uint8)
    space = space_from_dict(json.loads(json.dumps(PixelSpace(3, (1, 5, 4)).to_dict())))
    encoded = space.encode(pictures)
    assert isinstance(encoded, torch.Tensor)
    assert encoded.dtype == torch.uint8
    np.testing.assert_array_equal(encoded.numpy(), pictures.transpose(0, 1, 4, 2, 3))
    with pytest.raises(DataError, match=r"dtype float64, but each row must have shape \(3, 5, 4, 1\), in bytes"):
        space.encode(pictures / 255)


def test_unknown_kinds_are_refused():
    for description in ({"kind": "sphere"}, {}):
        with pytest.raises(DataError, match=r"unknown kind of space.*vector"):
            space_from_dict(description)


# Rows of a condition -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nested", [False, True], ids=["tensor", "dict"])
def test_rows_are_counted_taken_and_repeated(nested):
    rows = torch.arange(6.0).reshape(3, 2)
    x = {"a": rows, "b": rows[:, 0].long()} if nested else rows
    assert count_rows(x) == 3
    taken = take_rows(x, torch.tensor([2, 0]))
    repeated = repeat_rows(x, 2)
    placed = place(x, "cpu")
    if nested:
        assert taken["b"].tolist() == [4, 0]
        assert repeated["b"].tolist() == [0, 0, 2, 2, 4, 4]
        assert torch.equal(placed["a"], rows)
        taken, repeated = taken["a"], repeated["a"]
    assert torch.equal(taken, rows[[2, 0]])
    assert torch.equal(repeated, rows[[0, 0, 1, 1, 2, 2]])
    assert repeat_rows(x, 1) is x
