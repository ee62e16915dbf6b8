"""Videos of rendered episodes: gif by Pillow, mp4 by ffmpeg."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from everymode.errors import DataError, SettingError, require
from everymode.files import atomically

__all__ = ["SUFFIXES", "save_video"]

_USUAL_RATE = 10.0  # frames a second, where the environment has no rate


def save_video(frames: np.ndarray, path: str | os.PathLike[str], rate: float | None = None) -> Path:
    """Write frames as a .gif or an .mp4, whole or not at all.

    Args:
        frames: (frames, height, width, 3), uint8.
        path: its suffix says which.
        rate: frames a second. A gif keeps hundredths of a second: its frames last the nearest number of them.

    Raises:
        DataError: frames have another shape or dtype.
        SettingError: the suffix is another one.
        MissingExtraError: for mp4, imageio-ffmpeg is not installed.
    """
    path, frames = Path(path), np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames) or frames.dtype != np.uint8:
        raise DataError(
            f"frames have shape {frames.shape} and dtype {frames.dtype}; give (frames, height, width, 3), uint8."
        )
    if path.suffix.lower() not in SUFFIXES:
        raise SettingError(f"{path.name} is no video that can be written: name it .gif or .mp4.")
    path.parent.mkdir(parents=True, exist_ok=True)
    SUFFIXES[path.suffix.lower()](frames, path, rate or _USUAL_RATE)
    return path


def _gif(frames: np.ndarray, path: Path, rate: float) -> None:
    from PIL import Image

    first, *others = [Image.fromarray(frame) for frame in frames]
    lasts = 10 * max(2, round(100 / rate))  # milliseconds; viewers take less than 20 for a mistake
    with atomically(path) as file:
        first.save(file, format="GIF", save_all=True, append_images=others, duration=lasts, loop=0)


def _mp4(frames: np.ndarray, path: Path, rate: float) -> None:
    writer = require("imageio_ffmpeg", "policies", "mp4 videos").write_frames
    height, width = frames.shape[1:3]
    even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")  # yuv420 halves both sides
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.mp4")
    try:
        video = writer(str(temporary), (even.shape[2], even.shape[1]), fps=rate, macro_block_size=1)
        video.send(None)
        for frame in even:
            video.send(np.ascontiguousarray(frame))
        video.close()
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


SUFFIXES: dict[str, Callable[[np.ndarray, Path, float], None]] = {".gif": _gif, ".mp4": _mp4}
"""What can be written, and by what."""
