"""Readers: what a format's own library wrote comes back, and what is damaged is one sentence that names the mend."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr

from everymode.errors import DataError, FileError, SettingError
from everymode.policies import read_demonstrations
from everymode.policies.demonstrations import Demonstrations
from everymode.policies.readers.stored import Stored

LENGTHS = (7, 1, 12)
ENDS = np.cumsum(LENGTHS)
STEPS = int(ENDS[-1])
rng = np.random.default_rng(0)
STATE = rng.normal(size=(STEPS, 5)).astype(np.float32)
ACTION = rng.uniform(0, 512, size=(STEPS, 2)).astype(np.float32)
KEYPOINT = rng.normal(size=(STEPS, 9, 2)).astype(np.float32)
PIXELS = rng.integers(0, 256, size=(STEPS, 6, 5, 3), dtype=np.uint8)


def same(found: Demonstrations, **observations: np.ndarray) -> None:
    """The observations, actions and ends are those that were written, in type, too."""
    assert set(found.observations) == set(observations)
    for name, written in observations.items():
        read = np.asarray(found.observations[name])
        assert read.dtype == written.dtype
        np.testing.assert_array_equal(read, written)
    np.testing.assert_array_equal(found.actions, ACTION)
    assert found.episode_ends.tolist() == ENDS.tolist()


# Rows that are read as they are asked for ----------------------------------------------------------------------------


def test_rows_of_several_parts_are_those_of_the_whole():
    stored = Stored([STATE[:4], STATE[4:5], STATE[5:]], "here")
    assert stored.shape == STATE.shape
    assert stored.nbytes == STATE.nbytes
    for rows in (slice(2, 9), slice(None, None, 3), slice(5, 5), -1, 6, [8, 0, 8], rng.integers(0, STEPS, (4, 3)), []):
        asked = rows if isinstance(rows, slice | int) else np.asarray(rows, dtype=int)
        np.testing.assert_array_equal(stored[asked], STATE[asked])
    np.testing.assert_array_equal(stored[STATE[:, 0] > 0], STATE[STATE[:, 0] > 0])
    with pytest.raises(IndexError, match="to 20 of 20"):
        stored[[0, STEPS]]


# NumPy ---------------------------------------------------------------------------------------------------------------

MEMBERS = {"state": STATE, "action": ACTION, "keypoint": KEYPOINT, "img": PIXELS, "episode_ends": ENDS}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_comes_back_and_push_t_is_known(tmp_path, save):
    save(tmp_path / "some.npz", **MEMBERS)
    found = read_demonstrations(tmp_path / "some.npz")
    same(found, state=STATE, keypoint=KEYPOINT, image=PIXELS)
    assert (found.rate, found.angles, found.source) == (10.0, {"state": (4,)}, "some.npz")
    assert found.names["state"][4] == "block angle"
    assert read_demonstrations(tmp_path / "some.npz", keys=["keypoint"]).angles == {}


def test_uncompressed_members_lie_on_the_disk_and_compressed_ones_cannot(tmp_path):
    np.savez(tmp_path / "plain.npz", **MEMBERS)
    np.savez_compressed(tmp_path / "packed.npz", **MEMBERS)
    found = read_demonstrations(tmp_path / "plain.npz", in_memory=False)
    assert isinstance(found.observations["state"].parts[0], np.memmap)
    assert isinstance(found.actions, np.ndarray)
    same(found, state=STATE, keypoint=KEYPOINT, image=PIXELS)
    with pytest.raises(DataError, match="can only be read whole"):
        read_demonstrations(tmp_path / "packed.npz", in_memory=False)


def test_pictures_beside_states_are_one_set(tmp_path):
    members = dict(MEMBERS)
    np.savez(tmp_path / "pictures.npz", img=members.pop("img"))
    np.savez(tmp_path / "states.npz", **members)
    found = read_demonstrations([tmp_path / "states.npz", tmp_path / "pictures.npz"], keys={"view": "image"})
    same(found, view=PIXELS)
    with pytest.raises(DataError, match="give both: the one with the actions first"):
        read_demonstrations(tmp_path / "pictures.npz")


def test_npz_tells_rate_and_ways(tmp_path):
    np.savez(
        tmp_path / "ways.npz",
        state=STATE,
        action=ACTION,
        episode_ends=ENDS,
        rate=5.0,
        ways=[0, 1, 0],
        way_names=["a", "b"],
    )
    found = read_demonstrations(tmp_path / "ways.npz", angles={"state": [1]})
    assert (found.rate, list(found.ways), found.way_names, found.angles) == (5.0, [0, 1, 0], ("a", "b"), {"state": [1]})
    assert read_demonstrations(tmp_path / "ways.npz", rate=20).rate == 20.0


# Diffusion Policy ----------------------------------------------------------------------------------------------------


def write_zarr(store, inside: str = "", **changes: np.ndarray) -> None:
    root = zarr.open_group(store, path=inside, mode="w", zarr_format=2)
    groups = {"data": root.create_group("data"), "meta": root.create_group("meta")}
    for name, values in {**MEMBERS, **changes}.items():
        group = groups["meta" if name == "episode_ends" else "data"]
        group.create_array(name, data=np.asarray(values), chunks=(8, *np.shape(values)[1:]))
    store.close()


@pytest.fixture(scope="module")
def zarrs(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("zarr")
    paths = {"folder": folder / "some.zarr", "zip": folder / "some.zarr.zip", "deep": folder / "deep.zip"}
    write_zarr(zarr.storage.LocalStore(paths["folder"]))
    write_zarr(zarr.storage.ZipStore(paths["zip"], mode="w"))
    write_zarr(zarr.storage.ZipStore(paths["deep"], mode="w"), "pusht/replay.zarr", img=PIXELS.astype(np.float32))
    return paths


@pytest.mark.parametrize("kind", ["folder", "zip", "deep"])
@pytest.mark.parametrize("in_memory", [True, False])
def test_zarr_comes_back(zarrs, kind, in_memory):
    found = read_demonstrations(zarrs[kind], in_memory=in_memory)
    same(found, state=STATE, keypoint=KEYPOINT, image=PIXELS)
    assert (found.rate, found.angles) == (10.0, {"state": (4,)})
    assert isinstance(found.observations["image"], np.ndarray if in_memory else Stored)


def test_floats_from_0_to_1_are_pixels_too(tmp_path):
    write_zarr(zarr.storage.LocalStore(tmp_path / "unit.zarr"), img=np.moveaxis(PIXELS, -1, 1).astype(np.float64) / 255)
    same(read_demonstrations(tmp_path / "unit.zarr", keys=["image"]), image=PIXELS)


def test_a_chunk_that_is_lost_is_not_read_as_zeros(tmp_path):
    write_zarr(zarr.storage.LocalStore(tmp_path / "some.zarr"), touched=np.zeros((STEPS, 1)))
    found = read_demonstrations(tmp_path / "some.zarr")  # chunks of zeros are left out, and no loss
    assert not found.observations["touched"].any()
    (tmp_path / "some.zarr/data/state/1.0").unlink()
    with pytest.raises(FileError, match="1 of 3 chunks of data/state are missing"):
        read_demonstrations(tmp_path / "some.zarr")


def test_a_chunk_that_is_cut_short_is_said_when_it_is_read(tmp_path):
    write_zarr(zarr.storage.LocalStore(tmp_path / "some.zarr"))
    chunk = tmp_path / "some.zarr/data/img/2.0.0.0"
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(FileError, match=r"data/img is damaged or cut short"):
        read_demonstrations(tmp_path / "some.zarr")
    found = read_demonstrations(tmp_path / "some.zarr", keys=["state"])
    same(found, state=STATE)


# What is refused, in every format ------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.3, 0.95])
def test_a_zip_that_is_cut_short(zarrs, tmp_path, share):
    np.savez(tmp_path / "some.npz", **MEMBERS)
    for whole in (zarrs["zip"], tmp_path / "some.npz"):
        cut = tmp_path / f"cut-{whole.name}"
        cut.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
        with pytest.raises(FileError, match=rf"cut-{whole.name} is damaged or cut short: .*\. Copy or download"):
            read_demonstrations(cut)


def test_a_member_that_is_damaged(tmp_path):
    np.savez_compressed(tmp_path / "some.npz", **MEMBERS)
    content = bytearray((tmp_path / "some.npz").read_bytes())
    with zipfile.ZipFile(tmp_path / "some.npz") as file:
        start = file.getinfo("action.npy").header_offset
    content[start + 110 : start + 160] = bytes(50)
    (tmp_path / "some.npz").write_bytes(content)
    with pytest.raises(FileError, match="damaged or cut short"):
        read_demonstrations(tmp_path / "some.npz")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"action": np.where(np.arange(STEPS)[:, None] == 9, np.nan, ACTION)}, "action holds NaN .* episode 2, step 1"),
        ({"episode_ends": ENDS - 1}, "ends at step 19, but there are 20 steps"),
        ({"episode_ends": np.array([7, 7, 20])}, "episode 1 has 0 steps"),
    ],
)
def test_what_does_not_fit(tmp_path, changes, said):
    np.savez(tmp_path / "some.npz", **{**MEMBERS, **changes})
    write_zarr(zarr.storage.LocalStore(tmp_path / "some.zarr"), **changes)
    for name in ("some.npz", "some.zarr"):
        with pytest.raises(DataError, match=rf"{name}: .*{said}"):
            read_demonstrations(tmp_path / name)


def test_a_name_that_is_not_there_is_told_with_the_nearest(tmp_path):
    np.savez(tmp_path / "some.npz", **MEMBERS)
    with pytest.raises(DataError, match=r"'stat'.*'state'"):
        read_demonstrations(tmp_path / "some.npz", keys=["stat"])
    with pytest.raises(DataError, match=re.escape("give a list of names, such as ['state']")):
        read_demonstrations(tmp_path / "some.npz", keys="state")
    np.savez(tmp_path / "some.npz", state=STATE, actoin=ACTION, episode_ends=ENDS)
    with pytest.raises(DataError, match=r"has no 'action', only state, actoin, episode_ends\. Did you mean 'actoin'"):
        read_demonstrations(tmp_path / "some.npz")


def test_what_is_of_no_format_is_told_what_was_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(FileError, match=r"of no format that is known.*meta/episode_ends.*\.npz file"):
            read_demonstrations(path)
    with pytest.raises(FileError, match="no such file"):
        read_demonstrations(tmp_path / "nowhere.zarr")
    with pytest.raises(SettingError, match="'npz'"):
        read_demonstrations(tmp_path, "npy")
