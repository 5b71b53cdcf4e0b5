"""Side-by-side video: the left half is the left view; what cannot be read is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stereopsis.io.images import write_image
from stereopsis.io.video import VideoInfo, read_video_info, read_video_pairs, write_video


def _frames(count: int, *, width: int = 128) -> list[np.ndarray]:
    """Red left halves, blue right halves, brighter from frame to frame."""
    frames = []
    for index in range(count):
        frame = np.zeros((48, width, 3), np.uint8)
        frame[:, : width // 2, 0] = 60 * (index + 1)
        frame[:, width // 2 :, 2] = 60 * (index + 1)
        frames.append(frame)
    return frames


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_pairs_come_back_in_order_with_left_on_the_left(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"video{suffix}"
    assert write_video(path, _frames(3), rate=10.0) == 3
    assert read_video_info(path) == VideoInfo((48, 64), 3, 10.0)
    pairs = list(read_video_pairs(path))
    assert [pair.size for pair in pairs] == [(48, 64)] * 3
    for index, pair in enumerate(pairs):
        level = 60 * (index + 1) / 255
        np.testing.assert_allclose(pair.left[:, 8:-8, 8:-8].mean((1, 2)), [level, 0, 0], atol=0.05)
        np.testing.assert_allclose(pair.right[:, 8:-8, 8:-8].mean((1, 2)), [0, 0, level], atol=0.05)


def test_every_third_frame_is_taken_from_the_first_on(tmp_path: Path) -> None:
    path = tmp_path / "video.avi"
    write_video(path, _frames(4), rate=10.0)
    levels = [float(pair.left[0, 8:-8, 8:-8].mean()) for pair in read_video_pairs(path, every=3)]
    np.testing.assert_allclose(levels, [60 / 255, 240 / 255], atol=0.05)


def test_an_odd_width_is_no_side_by_side_video(tmp_path: Path) -> None:
    """Our own writer makes even videos only; OpenCV opens a numbered picture as a video of one frame."""
    write_image(tmp_path / "odd_0.png", _frames(1, width=127)[0])
    with pytest.raises(ValueError, match=r"odd_0\.png is 127 pixels wide"):
        next(read_video_pairs(tmp_path / "odd_0.png"))


@pytest.mark.parametrize("content", [b"", b"no video at all", b"RIFF\xff\xff\xff\x7fAVI LIST"])
def test_what_is_no_video_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "video.avi").write_bytes(content)
    with pytest.raises(ValueError, match=r"video\.avi"):
        next(read_video_pairs(tmp_path / "video.avi"))


@pytest.mark.parametrize(
    ("name", "frames", "said"),
    [
        ("a.avi", [], "no frames"),
        ("a.gif", _frames(1), r"\.mp4"),
        ("a.avi", [*_frames(1), *_frames(1, width=64)], "another size"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(
    tmp_path: Path, name: str, frames: list[np.ndarray], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        write_video(tmp_path / name, frames, rate=10.0)
    assert list(tmp_path.iterdir()) == []
