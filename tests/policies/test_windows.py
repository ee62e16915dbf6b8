"""Windows against a naive loop, and what they are read from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from everymode.errors import DataError
from everymode.policies import Demonstrations
from everymode.policies.windows import (
    Windows,
    action_windows,
    observation_windows,
    past_rows,
    spaces_of,
    steps_of,
    take_windows,
    upcoming_rows,
)
from everymode.spaces import DictSpace, SequenceSpace, space_from_dict


def demonstrated(lengths=(5, 1, 3), **changes) -> Demonstrations:
    steps, rng = sum(lengths), np.random.default_rng(0)
    given = {
        "observations": {
            "state": rng.normal(size=(steps, 3)),
            "image": rng.integers(0, 256, (steps, 6, 5, 3), dtype=np.uint8),
            "task": np.asarray([["lift", "push"][i % 2] for i in range(steps)]),
        },
        "actions": rng.normal(size=(steps, 2)),
        "episode_ends": np.cumsum(lengths),
    }
    return Demonstrations(**{**given, **changes})


def naive(lengths, past: int, upcoming: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of both windows at every step, by padding each episode by itself."""
    seen, done, start = [], [], 0
    for length in lengths:
        rows = list(range(start, start + length))
        padded = [rows[0]] * (past - 1) + rows + [rows[-1]] * (upcoming - 1)
        for step in range(length):
            present = step + past - 1
            seen.append(padded[present - past + 1 : present + 1])
            done.append(padded[present : present + upcoming])
        start += length
    return np.asarray(seen), np.asarray(done)


@pytest.mark.parametrize("seed", range(20))
def test_rows_of_windows_are_those_of_a_naive_loop(seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, size=rng.integers(1, 6))
    past, upcoming = (int(h) for h in rng.integers(1, 12, size=2))  # often longer than the episodes
    seen, done = naive(lengths, past, upcoming)
    ends = np.cumsum(lengths)
    np.testing.assert_array_equal(past_rows(ends, past), seen)
    np.testing.assert_array_equal(upcoming_rows(ends, upcoming), done)


def test_windows_hold_what_was_seen_and_done_standardised():
    demonstrations = demonstrated()
    x_space, y_space = spaces_of(demonstrations, 2, 4)
    x, y = observation_windows(demonstrations, x_space), action_windows(demonstrations, y_space)
    seen, done = naive((5, 1, 3), 2, 4)
    np.testing.assert_allclose(y_space.decode(y), demonstrations.actions[done], atol=1e-6)
    state = x_space.parts["state"]
    assert isinstance(state, SequenceSpace)
    np.testing.assert_allclose(state.decode(x["state"][:]), demonstrations.observations["state"][seen], atol=1e-6)
    pictures = x["image"].index_select(0, torch.tensor([7, 0]))
    assert pictures.dtype == torch.uint8
    np.testing.assert_array_equal(pictures.movedim(-3, -1).numpy(), demonstrations.observations["image"][seen[[7, 0]]])
    assert x["task"].tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]  # of the present step


@pytest.mark.parametrize("name", ["state", "image"])
def test_windows_stand_for_the_tensor_that_they_never_make(name):
    demonstrations = demonstrated()
    windows = observation_windows(demonstrations, spaces_of(demonstrations, 3, 2)[0])[name]
    whole = windows[:]
    assert windows.shape == whole.shape
    assert (len(windows), windows.ndim) == (len(whole), whole.ndim)
    index = torch.tensor([4, 4, 0])
    assert torch.equal(windows.index_select(0, index), whole[index])
    assert torch.equal(windows.take(index)[1:], whole[index][1:])
    assert torch.equal(windows.to("cpu")[2:5], whole[2:5])


def test_pictures_of_a_mapped_file_are_read_where_they_lie(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (9, 6, 5, 3), dtype=np.uint8)
    np.save(tmp_path / "pictures.npy", pictures)
    mapped = np.load(tmp_path / "pictures.npy", mmap_mode="r")
    demonstrations = demonstrated(observations={"image": mapped})
    windows = observation_windows(demonstrations, spaces_of(demonstrations, 2, 1)[0])["image"]
    assert isinstance(windows.take(torch.tensor([3, 1])).to("cpu").steps, np.memmap)
    assert torch.equal(windows[:], Windows(pictures, windows.rows)[:])


def test_rows_are_held_out_by_whole_episodes():
    demonstrations = demonstrated()
    kept, out = steps_of(demonstrations, np.asarray([2, 0])), steps_of(demonstrations, np.asarray([1]))
    assert kept.tolist() == [0, 1, 2, 3, 4, 6, 7, 8]
    assert out.tolist() == [5]
    x = observation_windows(demonstrations, spaces_of(demonstrations, 2, 1)[0])
    taken = take_windows(x, kept)
    for name in x:
        assert torch.equal(taken[name][:], x[name][:][kept])


def test_the_spaces_travel_as_json():
    demonstrations = demonstrated(angles={"state": (1,), "action": (0,)})
    for space in spaces_of(demonstrations, 2, 3):
        assert space_from_dict(space.to_dict()) == space


@pytest.mark.parametrize(
    ("observations", "said"),
    [
        ({"image": np.zeros((9, 4, 4, 3))}, r"image has shape \(9, 4, 4, 3\).*in bytes"),
        ({"state": np.asarray([["a"]] * 9)}, "give numbers"),
    ],
)
def test_what_no_space_suits_is_refused(observations, said):
    with pytest.raises(DataError, match=said):
        spaces_of(demonstrated(observations=observations), 2, 2)


def test_a_value_that_never_changes_keeps_its_scale():
    still = demonstrated(observations={"state": np.full((9, 2), 7.0)})
    space = spaces_of(still, 2, 1)[0]
    assert isinstance(space, DictSpace)
    assert space.parts["state"].scale == (1.0, 1.0)  # type: ignore[attr-defined]
    assert torch.equal(observation_windows(still, space)["state"][:], torch.zeros(9, 2, 2))
