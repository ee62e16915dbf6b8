"""LeRobot's data sets, formats 2 and 3: a folder with `meta/info.json`, parquet files in `data`, videos in `videos`.

Features named `observation.NAME` are the observations, by the names NAME; `action` are the actions, at `fps`. Where
there are several tasks, `task` is one more observation, the text of each step's task; where there is one, it is read
if it is asked for. Pictures in parquet are kept packed, and unpacked as they are asked for or at once; videos are
decoded at once, through imageio-ffmpeg, or not at all.

References:
    LeRobot (Cadene et al., 2024), https://huggingface.co/docs/lerobot/lerobot-dataset-v3
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from everymode.errors import DataError, FileError
from everymode.policies.demonstrations import ACTION
from everymode.policies.readers.contents import Contents, needed
from everymode.policies.readers.frames import Pictures, Video
from everymode.policies.readers.stored import Stored, damaged

__all__ = ["LOOKS_FOR", "read", "recognises"]

LOOKS_FOR = "a folder with meta/info.json, or hub:owner/name (LeRobot)"
_INFO, _TASK, _PREFIX = "meta/info.json", "task", "observation."
_VIDEO_PATHS = {
    2: "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    3: "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}


def recognises(path: Path) -> bool:
    """Return whether a path is of this format."""
    return (path / _INFO).is_file()


def read(path: Path) -> Contents:
    """Return what is in a folder.

    Raises:
        FileError: files are damaged or missing.
        DataError: it is of a format before 2, or has no actions or observations.
    """
    return _DataSet(path).contents()


def _table(path: Path, columns: list[str] | None = None) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path).read(columns)
    except (OSError, pyarrow.ArrowException) as error:
        raise damaged(str(path), error) from error


@dataclass(frozen=True)
class _Column:
    """A feature in one parquet file, read when it is first asked for."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @cached_property
    def _values(self) -> np.ndarray:
        import pyarrow

        column = _table(self.path, [self.name])[self.name].combine_chunks()
        while isinstance(column, pyarrow.ExtensionArray) or pyarrow.types.is_nested(column.type):
            column = column.storage if isinstance(column, pyarrow.ExtensionArray) else column.flatten()
        values = column.to_numpy(zero_copy_only=False)
        if values.size != np.prod(self.shape):
            raise DataError(f"{self.path}: {self.name} holds {values.size} numbers where {self.shape} are told.")
        return values.reshape(self.shape).astype(self.dtype, copy=False)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self._values[rows]


@dataclass(frozen=True)
class _Packed:
    """The packed pictures of one parquet file: bytes in it, or paths beside it."""

    path: Path
    name: str
    root: Path

    @cached_property
    def _values(self) -> list[dict[str, Any]]:
        return _table(self.path, [self.name])[self.name].to_pylist()

    def __getitem__(self, rows: slice) -> list[bytes]:
        return [one["bytes"] or (self.root / one["path"]).read_bytes() for one in self._values[rows]]


class _DataSet:
    """A folder.

    Args:
        root: of the data set.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.name = root, root.name
        try:
            self.info: dict[str, Any] = json.loads((root / _INFO).read_text())
        except ValueError as error:
            raise damaged(str(root / _INFO), error) from error
        told = re.match(r"v([23])\.", str(self.info.get("codebase_version")))
        if not told:
            raise DataError(
                f"{root} is of LeRobot's format {self.info.get('codebase_version')!r}, and formats 2 and 3 are read: "
                "bring it up to date with LeRobot's own scripts."
            )
        self.version = int(told[1])
        self.features: dict[str, dict[str, Any]] = self.info.get("features") or {}
        self.files = sorted((root / "data").rglob("*.parquet"), key=_numbers)
        if not self.files:
            raise FileError(f"{root}/data holds no parquet file: download the data set again.")

    def contents(self) -> Contents:
        """Return what is in it."""
        needed(self.name, self.features, ACTION)
        indices = [_table(path, ["episode_index", "task_index"]) for path in self.files]
        self.rows = [len(table) for table in indices]
        self.episode, task = (
            np.concatenate([np.asarray(table[name]) for table in indices]) for name in ("episode_index", "task_index")
        )
        self._check_whole()
        observations: dict[str, Any] = {
            name.removeprefix(_PREFIX): self._observation(name) for name in self.features if name.startswith(_PREFIX)
        }
        if not observations:
            raise DataError(f"{self.name} has no feature {_PREFIX}..., only {', '.join(self.features)}.")
        tasks = self._tasks()
        if set(task.tolist()) <= set(tasks):
            observations[_TASK] = np.array([tasks[index] for index in task.tolist()])
        names = {name.removeprefix(_PREFIX): _names(feature) for name, feature in self.features.items()}
        return Contents(
            observations,
            self._numbers(ACTION),
            np.flatnonzero(np.diff(self.episode, append=-1)) + 1,
            self.name,
            only_asked=(_TASK,) if len(np.unique(task)) == 1 else (),
            rate=float(self.info["fps"]) if self.info.get("fps") else None,
            names={name: told for name, told in names.items() if told and name in (*observations, ACTION)},
        )

    def _check_whole(self) -> None:
        if (np.diff(self.episode) < 0).any():
            raise DataError(f"{self.name}: the episodes in data do not follow one another by their numbers.")
        for what, told, there in (
            ("steps", "total_frames", len(self.episode)),
            ("episodes", "total_episodes", len(np.unique(self.episode))),
        ):
            if self.info.get(told, there) != there:
                raise FileError(
                    f"{self.root}: {there} of {self.info[told]} {what} are there: files are missing. Download the data "
                    "set again."
                )

    def _observation(self, name: str) -> Stored:
        kind = self.features[name].get("dtype")
        if kind == "image":
            return self._pictures(name)
        return self._video(name) if kind == "video" else self._numbers(name)

    def _numbers(self, name: str) -> Stored:
        feature = self.features[name]
        text = feature["dtype"] == "string"
        event, dtype = () if text else tuple(feature["shape"]), np.dtype(object if text else feature["dtype"])
        parts = [_Column(path, name, (rows, *event), dtype) for path, rows in zip(self.files, self.rows, strict=True)]
        return Stored(parts, f"{self.root}: {name}")

    def _pictures(self, name: str) -> Stored:
        packed = [_Packed(path, name, self.root) for path in self.files]
        event = _picture_shape(self.features[name])
        parts = [Pictures(one, (rows, *event)) for one, rows in zip(packed, self.rows, strict=True)]
        return Stored(parts, f"{self.root}: {name}")

    def _video(self, name: str) -> Stored:
        event = _picture_shape(self.features[name])
        template = self.info.get("video_path") or _VIDEO_PATHS[self.version]
        numbers, lengths = np.unique(self.episode, return_counts=True)
        parts: list[Video] = []
        for path, first, rows in self._clips(name, template, numbers, lengths):
            frames = range(first, first + rows)
            if parts and parts[-1].path == path and frames[0] > parts[-1].frames[-1]:
                before = parts.pop()
                parts.append(Video(path, [*before.frames, *frames], (before.shape[0] + rows, *event)))
            else:
                parts.append(Video(path, frames, (rows, *event)))
        return Stored(parts, f"{self.root}: {name}", sliceable=False)

    def _clips(self, name: str, template: str, numbers: np.ndarray, lengths: np.ndarray) -> list[tuple[Path, int, int]]:
        """Return the video of each episode, its first frame in it, and its rows."""
        if self.version == 2:
            size = self.info.get("chunks_size", 1000)
            fill = [{"episode_chunk": e // size, "episode_index": e, "video_key": name} for e in numbers.tolist()]
            firsts = [0] * len(fill)
        else:
            files = sorted((self.root / "meta/episodes").rglob("*.parquet"), key=_numbers)
            told = {row["episode_index"]: row for file in files for row in _table(file).to_pylist()}
            lost = [e for e in numbers.tolist() if f"videos/{name}/from_timestamp" not in told.get(e, {})]
            if lost:
                raise FileError(f"{self.root}/meta/episodes does not tell where in {name} episode {lost[0]} begins.")
            rows = [told[e] for e in numbers.tolist()]
            fill = [
                {f"{part}_index": row[f"videos/{name}/{part}_index"] for part in ("chunk", "file")}
                | {"video_key": name}
                for row in rows
            ]
            firsts = [round(row[f"videos/{name}/from_timestamp"] * self.info["fps"]) for row in rows]
        paths = [self.root / template.format(**one) for one in fill]
        return list(zip(paths, firsts, lengths.tolist(), strict=True))

    def _tasks(self) -> dict[int, str]:
        meta = self.root / "meta"
        if (meta / "tasks.jsonl").is_file():
            rows = [json.loads(line) for line in (meta / "tasks.jsonl").read_text().splitlines() if line.strip()]
        elif (meta / "tasks.parquet").is_file():
            rows = _table(meta / "tasks.parquet").to_pylist()
        else:
            return {}
        # the text is pandas' index, which has a name of its own or none
        return {row["task_index"]: next(str(v) for k, v in row.items() if k != "task_index") for row in rows}


def _numbers(path: Path) -> list[int]:
    """Return the numbers in a path, to sort by: chunk 1000 is after chunk 999."""
    return [int(number) for part in path.parts[-2:] for number in re.findall(r"\d+", part)]


def _picture_shape(feature: dict[str, Any]) -> tuple[int, int, int]:
    """Return (height, width, 3); formats differ in whether channels are told first or last."""
    told = list(feature["shape"])
    names = [str(name) for name in feature.get("names") or []]
    first = names[0].startswith("channel") if names else told[0] in (1, 3) and told[-1] not in (1, 3)
    height, width = told[1:] if first else told[:2]
    return height, width, 3


def _names(feature: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of a feature's values, () where they are not told one by one."""
    told = feature.get("names")
    if isinstance(told, dict):
        told = next(iter(told.values()), None)
    return tuple(map(str, told)) if isinstance(told, list) and [len(told)] == list(feature["shape"]) else ()
