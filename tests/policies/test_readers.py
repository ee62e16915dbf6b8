"""Readers: what a format's own library wrote comes back, and what is damaged is one sentence that names the mend."""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from pathlib import Path

import gymnasium
import h5py
import huggingface_hub
import imageio_ffmpeg
import minari
import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
import zarr
from huggingface_hub.errors import LocalEntryNotFoundError
from minari.data_collector import EpisodeBuffer
from PIL import Image

from everymode.errors import DataError, FileError, SettingError
from everymode.policies import read_demonstrations
from everymode.policies.demonstrations import Demonstrations
from everymode.policies.readers.stored import Stored

LENGTHS = (7, 1, 12)
ENDS = np.cumsum(LENGTHS)
STEPS = int(ENDS[-1])
SPANS = [(int(end) - length, int(end)) for length, end in zip(LENGTHS, ENDS, strict=True)]
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


# robomimic -----------------------------------------------------------------------------------------------------------


def write_robomimic(path: Path, **changes: np.ndarray) -> Path:
    arrays = {
        "obs/eef_pos": STATE,
        "obs/agentview_image": PIXELS,
        "actions": ACTION,
        "rewards": ACTION[:, 0],
        **changes,
    }
    with h5py.File(path, "w") as file:
        file.create_group("data").attrs["env_args"] = json.dumps(
            {"env_name": "Lift", "env_kwargs": {"control_freq": 20}}
        )
        for index, (start, end) in enumerate(SPANS):
            for name, values in arrays.items():
                file[f"data/demo_{index + 9}/{name}"] = values[start:end]  # demo_10 is after demo_9, not before
        file["mask/train"] = np.array(["demo_11", "demo_9"], dtype="S8")
    return path


@pytest.mark.parametrize("in_memory", [True, False])
def test_robomimic_comes_back(tmp_path, in_memory):
    found = read_demonstrations(write_robomimic(tmp_path / "lift.hdf5"), in_memory=in_memory)
    same(found, eef_pos=STATE, agentview_image=PIXELS)
    assert found.rate == 20.0
    rows = rng.integers(0, STEPS, (3, 4))
    np.testing.assert_array_equal(found.observations["eef_pos"][rows], STATE[rows])


def test_a_filter_key_is_its_part(tmp_path):
    path = write_robomimic(tmp_path / "lift.hdf5")
    found = read_demonstrations(path, subset="train", keys={"state": "eef_pos"})
    kept = np.r_[0 : ENDS[0], ENDS[1] : ENDS[2]]
    np.testing.assert_array_equal(found.observations["state"], STATE[kept])
    np.testing.assert_array_equal(found.actions, ACTION[kept])
    assert found.lengths.tolist() == [LENGTHS[0], LENGTHS[2]]
    with pytest.raises(DataError, match=r"filter key 'trian'. Did you mean 'train'"):
        read_demonstrations(path, subset="trian")
    np.savez(tmp_path / "some.npz", **MEMBERS)
    with pytest.raises(SettingError, match="only files of robomimic"):
        read_demonstrations(tmp_path / "some.npz", subset="train")


def test_states_of_a_simulator_alone_are_no_observations(tmp_path):
    path = write_robomimic(tmp_path / "lift.hdf5")
    with h5py.File(path, "a") as file:
        for name in ("demo_9", "demo_10", "demo_11"):
            del file[f"data/{name}/obs"]
    with pytest.raises(DataError, match=r"has no 'obs'.*dataset_states_to_obs"):
        read_demonstrations(path)


def test_an_episode_that_lacks_what_others_have(tmp_path):
    path = write_robomimic(tmp_path / "lift.hdf5")
    with h5py.File(path, "a") as file:
        file["data/demo_10/obs/eef_positions"] = file["data/demo_10/obs/eef_pos"]
        del file["data/demo_10/obs/eef_pos"]
    with pytest.raises(DataError, match=r"demo_10: Unknown array 'obs/eef_pos'. Did you mean 'obs/eef_positions'"):
        read_demonstrations(path)


# Minari --------------------------------------------------------------------------------------------------------------


def write_minari(monkeypatch, folder: Path, observations, space: gymnasium.Space, name="test/some-v0") -> Path:
    """Write with Minari's own library, which keeps its data sets below one folder."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    buffers = []
    for start, end in SPANS:
        rows = np.r_[start:end, 0]  # one observation more than actions
        taken = (
            {key: v[rows] for key, v in observations.items()} if isinstance(observations, dict) else observations[rows]
        )
        zeros = np.zeros(end - start)
        buffers.append(
            EpisodeBuffer(
                observations=taken,
                actions=ACTION[start:end],
                rewards=zeros.tolist(),
                terminations=(zeros > 0).tolist(),
                truncations=(zeros > 0).tolist(),
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(
            name,
            buffers,
            observation_space=space,
            action_space=gymnasium.spaces.Box(0, 512, (2,), np.float32),
            data_format="hdf5",
            jpeg_encoding=False,
        )
    return folder / name


def box(values: np.ndarray) -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(values.min(), values.max(), values.shape[1:], values.dtype.type)


@pytest.mark.parametrize("in_memory", [True, False])
def test_minari_comes_back(monkeypatch, tmp_path, in_memory):
    path = write_minari(monkeypatch, tmp_path, STATE, box(STATE))
    found = read_demonstrations(path, in_memory=in_memory)
    same(found, state=STATE)
    assert found.source == "test/some-v0"
    same(read_demonstrations(path / "data" / "main_data.hdf5"), state=STATE)


def test_a_dict_of_minari_is_told_by_paths(monkeypatch, tmp_path):
    observations = {"observation": STATE, "goal": KEYPOINT[:, 0]}
    space = gymnasium.spaces.Dict({name: box(values) for name, values in observations.items()})
    same(
        read_demonstrations(write_minari(monkeypatch, tmp_path, observations, space)),
        observation=STATE,
        goal=KEYPOINT[:, 0],
    )


# LeRobot -------------------------------------------------------------------------------------------------------------

EPISODE = np.repeat(np.arange(3), LENGTHS)
TASKS = ["push", "pull"]


def packed(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    return content.getvalue()


def write_lerobot(root: Path, version: int, tasks=(0, 1, 0), **changes: np.ndarray) -> Path:
    """Write the files as LeRobot lays them: an episode a file in 2.1, several in 3.0."""
    state, action = changes.get("state", STATE), changes.get("action", ACTION)
    table = pyarrow.table(
        {
            "observation.state": pyarrow.FixedSizeListArray.from_arrays(state.ravel(), 5),
            "observation.image": [{"bytes": packed(one), "path": "frame.png"} for one in PIXELS],
            "observation.height": STATE[:, 0],  # a feature of shape (1,) is a plain column
            "action": list(action),
            "episode_index": EPISODE,
            "task_index": np.repeat(tasks, LENGTHS),
        }
    )
    files = {2: [[0], [1], [2]], 3: [[0, 1], [2]]}[version]
    paths = {2: "data/chunk-000/episode_{:06d}.parquet", 3: "data/chunk-000/file-{:03d}.parquet"}
    for index, episodes in enumerate(files):
        path = root / paths[version].format(index)
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(table.filter(pyarrow.array(np.isin(EPISODE, episodes))), path)
    (root / "meta").mkdir()
    number = {"dtype": "float32", "names": None}
    info = {
        "codebase_version": {2: "v2.1", 3: "v3.0"}[version],
        "fps": 10,
        "total_episodes": 3,
        "total_frames": STEPS,
        "features": {
            "observation.state": number | {"shape": [5], "names": {"motors": ["a", "b", "c", "d", "e"]}},
            "observation.image": {"dtype": "image", "shape": [3, 6, 5], "names": ["channels", "height", "width"]},
            "observation.height": number | {"shape": [1]},
            "action": number | {"shape": [2], "names": ["x", "y"]},
            "episode_index": {"dtype": "int64", "shape": [1], "names": None},
        },
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    if version == 2:
        lines = [json.dumps({"task_index": index, "task": task}) for index, task in enumerate(TASKS)]
        (root / "meta/tasks.jsonl").write_text("\n".join(lines) + "\n")
    else:
        pd.DataFrame({"task_index": [0, 1]}, index=TASKS).to_parquet(root / "meta/tasks.parquet")
    return root


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("in_memory", [True, False])
def test_lerobot_comes_back(tmp_path, version, in_memory):
    found = read_demonstrations(write_lerobot(tmp_path / "some", version), in_memory=in_memory)
    task = np.repeat(["push", "pull", "push"], LENGTHS)
    same(found, state=STATE, image=PIXELS, height=STATE[:, :1], task=task)
    assert (found.rate, found.names["state"], found.names["action"]) == (10.0, tuple("abcde"), ("x", "y"))
    assert isinstance(found.observations["image"], np.ndarray if in_memory else Stored)


def test_one_task_is_read_only_if_it_is_asked_for(tmp_path):
    path = write_lerobot(tmp_path / "some", 3, tasks=(1, 1, 1))
    assert "task" not in read_demonstrations(path).observations
    same(read_demonstrations(path, keys=["task"]), task=np.repeat("pull", STEPS))


def with_video(root: Path, version: int, frames: int = STEPS) -> np.ndarray:
    """Turn the pictures of a data set into a lossless video; return what its frames are."""
    pixels = np.repeat(np.repeat(PIXELS[:, :4, :4], 8, axis=1), 8, axis=2)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["observation.image"] = {
        "dtype": "video",
        "shape": [32, 32, 3],
        "names": ["height", "width", "channels"],
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    clips = [(0, STEPS)] if version == 3 else SPANS
    for index, (start, end) in enumerate(clips):
        name = "chunk-000/file-000" if version == 3 else f"episode_{index:06d}"
        middle = f"observation.image/{name}" if version == 3 else f"chunk-000/observation.image/{name}"
        path = root / "videos" / f"{middle}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = imageio_ffmpeg.write_frames(
            str(path),
            (32, 32),
            fps=10,
            codec="libx264rgb",
            pix_fmt_out="rgb24",
            quality=None,
            output_params=["-crf", "0"],
        )
        writer.send(None)
        for picture in pixels[start : min(end, frames)]:
            writer.send(np.ascontiguousarray(picture))
        writer.close()
    if version == 3:
        rows = {"episode_index": [0, 1, 2], "length": LENGTHS}
        for name, values in {"chunk_index": 0, "file_index": 0, "from_timestamp": np.r_[0, ENDS[:-1]] / 10}.items():
            rows[f"videos/observation.image/{name}"] = np.broadcast_to(values, 3)
        (root / "meta/episodes/chunk-000").mkdir(parents=True)
        pd.DataFrame(rows).to_parquet(root / "meta/episodes/chunk-000/file-000.parquet")
    return pixels


@pytest.mark.parametrize("version", [2, 3])
def test_videos_are_decoded_frame_by_frame(tmp_path, version):
    root = write_lerobot(tmp_path / "some", version)
    pixels = with_video(root, version)
    same(read_demonstrations(root, keys=["image"]), image=pixels)
    with pytest.raises(DataError, match=r"observation.image can only be read whole, .* pass in_memory=True"):
        read_demonstrations(root, in_memory=False)


def test_a_video_that_is_too_short_or_gone(tmp_path):
    root = write_lerobot(tmp_path / "some", 3)
    with_video(root, 3, frames=15)
    with pytest.raises(FileError, match=r"file-000.mp4 holds fewer frames than the 20 that are needed"):
        read_demonstrations(root)
    (root / "videos/observation.image/chunk-000/file-000.mp4").unlink()
    with pytest.raises(FileError, match=r"file-000\.mp4: there is no such video"):
        read_demonstrations(root)


def test_files_of_lerobot_that_are_missing_cut_short_or_old(tmp_path):
    root = write_lerobot(tmp_path / "some", 2)
    last = root / "data/chunk-000/episode_000002.parquet"
    content = last.read_bytes()
    last.write_bytes(content[: len(content) // 2])
    with pytest.raises(FileError, match=r"episode_000002\.parquet is damaged or cut short"):
        read_demonstrations(root)
    last.unlink()
    with pytest.raises(FileError, match="8 of 20 steps are there: files are missing"):
        read_demonstrations(root)
    (root / "meta/info.json").write_text(json.dumps({"codebase_version": "v1.6"}))
    with pytest.raises(DataError, match=r"LeRobot's format 'v1.6'"):
        read_demonstrations(root)


def test_a_data_set_of_the_hub_is_fetched_and_read(monkeypatch, tmp_path):
    asked = []

    def download(name, *, repo_type, revision):
        asked.append((name, repo_type, revision))
        if name == "us/nothing":
            raise LocalEntryNotFoundError("There is no connection.")
        return str(write_lerobot(tmp_path / str(len(asked)), 3))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    same(read_demonstrations("hub:us/pushing", keys=["state"]), state=STATE)
    read_demonstrations("hub:us/pushing@v3.0")
    assert asked == [("us/pushing", "dataset", None), ("us/pushing", "dataset", "v3.0")]
    with pytest.raises(FileError, match="cannot fetch hub:us/nothing: There is no connection"):
        read_demonstrations("hub:us/nothing")
    with pytest.raises(FileError, match="write it as hub:owner/name"):
        read_demonstrations("hub:pushing")


# What is refused, in every format ------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.3, 0.95])
def test_a_file_that_is_cut_short(zarrs, tmp_path, share):
    np.savez(tmp_path / "some.npz", **MEMBERS)
    for whole in (zarrs["zip"], tmp_path / "some.npz", write_robomimic(tmp_path / "some.hdf5")):
        cut = tmp_path / f"cut-{whole.name}"
        cut.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
        with pytest.raises(FileError, match=rf"cut-{whole.name}.* is damaged or cut short: .*\. Copy or download"):
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
