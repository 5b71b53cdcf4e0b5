"""Side-by-side stereo video in, and colour pictures out as video."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from stereopsis.io.atomic import writing
from stereopsis.io.files import existing_file
from stereopsis.io.headers import check_pixels
from stereopsis.io.images import quiet_opencv
from stereopsis.structures import StereoPair

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg")

_CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".avi": "MJPG", ".mkv": "mp4v", ".mov": "mp4v"}


@dataclass(frozen=True)
class VideoInfo:
    """size: (height, width) of one view; frames: as the container says, 0 where it does not."""

    size: tuple[int, int]
    frames: int
    rate: float


def read_video_info(path: str | Path) -> VideoInfo:
    """Size, length and rate of a side-by-side video; ValueError where it is none."""
    with _opened(path) as capture:
        return _info(capture, Path(path))


def read_video_pairs(path: str | Path, *, every: int = 1) -> Iterator[StereoPair]:
    """The pairs of a side-by-side video, left view in the left half, in order: frames 0, every, 2 every, ...

    Raises FileNotFoundError or ValueError for a file that is no video or whose width is odd.
    """
    with _opened(path) as capture:
        width = _info(capture, Path(path)).size[1]
        count = 0
        while True:
            with quiet_opencv():
                there, frame = capture.read()
            if not there:
                break
            count += 1
            views = np.ascontiguousarray(frame[..., ::-1])
            yield StereoPair.from_arrays(views[:, :width], views[:, width : 2 * width])
            with quiet_opencv():
                for _ in range(every - 1):
                    capture.grab()
        if count == 0:
            raise ValueError(
                f"{path} holds no frame that can be decoded: convert it, for instance to H.264 in .mp4"
            )


def write_video(path: str | Path, frames: Iterable[UInt8[np.ndarray, "h w 3"]], *, rate: float) -> int:
    """RGB frames of one size as a video (.mp4, .avi, .mkv, .mov), whole or not at all; how many there were.

    Codecs want even sizes: an odd last row or column is left out.
    Raises ValueError for a suffix without a codec, for no frames, and for frames of different sizes.
    """
    path = Path(path)
    codec = _CODECS.get(path.suffix.lower())
    if codec is None:
        raise ValueError(f"{path}: videos are written as {', '.join(_CODECS)}")
    writer, size, count = None, (0, 0), 0
    with writing(path) as temporary:
        try:
            for frame in frames:
                if writer is None:
                    size = (frame.shape[1], frame.shape[0])
                    writer = _writer(temporary, codec, rate, size, path)
                if (frame.shape[1], frame.shape[0]) != size:
                    raise ValueError(
                        f"{path}: frame {count} has another size than the first: make them equal"
                    )
                writer.write(np.ascontiguousarray(frame[..., ::-1]))
                count += 1
        finally:
            if writer is not None:
                writer.release()
        if count == 0:
            raise ValueError(f"{path}: there are no frames to write")
    return count


def _writer(temporary: Path, codec: str, rate: float, size: tuple[int, int], path: Path) -> cv2.VideoWriter:
    with quiet_opencv():
        writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*codec), rate, size)
    if not writer.isOpened():
        raise OSError(f"{path}: OpenCV cannot write this video here")
    return writer


@contextmanager
def _opened(path: str | Path) -> Iterator[cv2.VideoCapture]:
    path = existing_file(path, "a video")
    with quiet_opencv():
        capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise ValueError(f"{path} is no video that can be read: .mp4, .avi, .mkv or .mov were expected")
        yield capture
    finally:
        capture.release()


def _info(capture: cv2.VideoCapture, path: Path) -> VideoInfo:
    width, height = (int(capture.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    try:
        check_pixels(height, width)
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error
    if width % 2:
        raise ValueError(f"{path} is {width} pixels wide: a side-by-side video has an even width")
    frames = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
    return VideoInfo((height, width // 2), frames, float(capture.get(cv2.CAP_PROP_FPS)))
