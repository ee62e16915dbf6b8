"""Pictures that are kept packed: one by one as PNG or JPEG, or as frames of a video."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from everymode.errors import DataError, FileError, require

__all__ = ["Pictures", "Video"]

_BYTE = np.dtype(np.uint8)


def _unpack(packed: bytes) -> np.ndarray:
    """Return the pixels (height, width, 3) of a picture."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(packed)).convert("RGB"))


@dataclass(frozen=True)
class Pictures:
    """Packed pictures, unpacked when they are asked for.

    Attributes:
        packed: bytes of each, with a length and slices.
        shape: (rows, height, width, 3).
    """

    packed: Any
    shape: tuple[int, ...]
    dtype: np.dtype = _BYTE

    def __getitem__(self, rows: slice) -> np.ndarray:
        found = np.stack([_unpack(one) for one in self.packed[rows]])
        if found.shape[1:] != tuple(self.shape[1:]):
            raise DataError(f"pictures are {found.shape[1:]}, and the data set tells {tuple(self.shape[1:])}.")
        return found


@dataclass(frozen=True)
class Video:
    """Frames of a video, one a row. They depend on those before them, so the video is decoded up to the last one.

    Attributes:
        path: of the video.
        frames: numbers of those that are wanted, rising, (rows,).
        shape: (rows, height, width, 3).
    """

    path: Path
    frames: Sequence[int]
    shape: tuple[int, ...]
    dtype: np.dtype = _BYTE

    def __getitem__(self, rows: slice) -> np.ndarray:
        if not self.path.is_file():
            raise FileError(f"{self.path}: there is no such video. Download the data set again.")
        wanted, filled = self.frames[rows], 0
        found = np.empty((len(wanted), *self.shape[1:]), dtype=_BYTE)
        with closing(_decoded(self.path)) as frames:
            for number, frame in enumerate(frames):
                if frame.shape != found.shape[1:]:
                    told = f"{found.shape[1]} x {found.shape[2]}"
                    raise ValueError(f"frames of {self.path.name} are {frame.shape[0]} x {frame.shape[1]}, not {told}")
                while filled < len(wanted) and wanted[filled] == number:
                    found[filled] = frame
                    filled += 1
                if filled == len(wanted):
                    return found
        raise EOFError(f"{self.path.name} holds fewer frames than the {wanted[-1] + 1} that are needed")


def _decoded(path: Path) -> Iterator[np.ndarray]:
    """Yield the frames (height, width, 3) of a video, as they are: none is doubled or dropped to keep a rate."""
    program = require("imageio_ffmpeg", "policies", "videos").get_ffmpeg_exe()
    as_it_is = ("-fps_mode", "passthrough", "-f", "image2pipe", "-vcodec", "ppm", "-pix_fmt", "rgb24", "-")
    argv = [program, "-nostdin", "-v", "quiet", "-i", str(path), *as_it_is]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as running:
        frames: Any = running.stdout
        try:
            while frames.readline():  # P6
                width, height = map(int, frames.readline().split())
                frames.readline()  # 255
                size = height * width * 3
                content = frames.read(size)
                if len(content) < size:
                    return
                yield np.frombuffer(content, _BYTE).reshape(height, width, 3)
        finally:
            running.kill()
