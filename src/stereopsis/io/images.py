"""Images in and out: arrays in RGB(A) order as stored, headers checked before anything is decoded.

EXIF orientation is not applied: it would turn a pair's rows into columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from stereopsis.io.arrays import read_npy, write_npy
from stereopsis.io.atomic import writing
from stereopsis.io.exr import read_exr, write_exr
from stereopsis.io.files import read_bytes
from stereopsis.io.headers import Header, check_pixels, image_format, read_header

_KINDS: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    ".png": (("uint8", "uint16"), (1, 3, 4)),
    ".jpg": (("uint8",), (1, 3)),
    ".jpeg": (("uint8",), (1, 3)),
    ".tif": (("uint8", "uint16", "float32"), (1, 3, 4)),
    ".tiff": (("uint8", "uint16", "float32"), (1, 3, 4)),
    ".webp": (("uint8",), (3, 4)),
    ".bmp": (("uint8",), (1, 3)),
    ".ppm": (("uint8", "uint16"), (3,)),
    ".pgm": (("uint8", "uint16"), (1,)),
    ".npy": (("uint8", "uint16", "float32"), (1, 3, 4)),
    ".exr": (("float32",), (1, 3, 4)),
}
"""What each kind of file can hold: types and numbers of channels."""

IMAGE_SUFFIXES = tuple(_KINDS)


def read_image(path: str | Path) -> np.ndarray:
    """[h w] (gray) or [h w c] in RGB(A) order; uint8, uint16 or float32 as stored.

    PNG, JPEG, TIFF, WebP, PGM/PPM, BMP, npy and EXR, told apart by content. A PGM or PPM whose white is
    neither 255 nor 65535 is stretched to the range of its type. Raises FileNotFoundError or ValueError
    with one sentence for a missing, empty, truncated, damaged, foreign or absurdly large file.
    """
    image, header = _read_stored(path)
    if header.maximum in (0, 255, 65535):
        return image
    full = np.iinfo(image.dtype).max
    stretched = np.rint(image.astype(np.float64) * full / header.maximum)
    return stretched.clip(0, full).astype(image.dtype)


def read_stored(path: str | Path) -> np.ndarray:
    """As `read_image`, but every value as it lies in the file: for maps, whose values are quantities."""
    return _read_stored(path)[0]


def write_image(path: str | Path, array: np.ndarray) -> None:
    """A gray [h w], RGB or RGBA [h w c] image in the format that the suffix names, whole or not at all.

    JPEG is written at quality 95, WebP without loss. Raises ValueError where the format cannot hold
    the array's type or channels, OSError where the disk refuses.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _KINDS:
        raise ValueError(
            f"{path}: images are written as {', '.join(_KINDS)}, not as {suffix or 'no suffix'!r}"
        )
    image = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    channels = image.shape[2] if image.ndim == 3 else 1
    types, counts = _KINDS[suffix]
    if image.ndim not in (2, 3) or min(image.shape) == 0 or channels not in counts:
        raise ValueError(f"{path}: a {suffix} file holds {counts} channels, the array is {array.shape}")
    if image.dtype.name not in types:
        raise ValueError(f"{path}: a {suffix} file holds {' or '.join(types)}, the array is {image.dtype}")
    if suffix == ".npy":
        write_npy(path, image)
    elif suffix == ".exr":
        names = "Y" if channels == 1 else "RGBA"[:channels]
        planes = image[..., None] if image.ndim == 2 else image
        write_exr(path, {name: planes[..., index] for index, name in enumerate(names)})
    else:
        encoded = _encode(swap_channels(image), suffix, path)
        with writing(path) as temporary:
            temporary.write_bytes(encoded)


def swap_channels(image: np.ndarray) -> np.ndarray:
    """BGR(A) to RGB(A) and back; gray as it is."""
    if image.ndim == 2:
        return image
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)


def _read_stored(path: str | Path) -> tuple[np.ndarray, Header]:
    data = read_bytes(path, "an image")
    name = image_format(data)
    if name == "npy":
        image = _checked(read_npy(path), path)
        return image, Header("npy", (image.shape[0], image.shape[1]))
    if name == "EXR":
        image = _from_exr(path)
        return image, Header("EXR", (image.shape[0], image.shape[1]))
    try:
        header = read_header(data)
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error
    image = _decode(data)
    if image is None or image.shape[:2] != header.size:
        raise ValueError(f"{path} is a damaged or unsupported {header.format} file: export it again")
    return swap_channels(_checked(image, path)), header


def _checked(image: np.ndarray, path: str | Path) -> np.ndarray:
    """The array where it is an image; floats become float32."""
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (3, 4)):
        raise ValueError(
            f"{path} holds an array of shape {image.shape}: an image is [h w], [h w 3] or [h w 4]"
        )
    try:
        check_pixels(*image.shape[:2])
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error
    if image.dtype.kind == "f":
        return image.astype(np.float32)
    if image.dtype.kind == "u" and image.dtype.itemsize <= 2:
        return image.astype(image.dtype.newbyteorder("="))
    raise ValueError(f"{path} holds {image.dtype}: an image is uint8, uint16 or float")


def _from_exr(path: str | Path) -> np.ndarray:
    channels = read_exr(path)
    if {"R", "G", "B"} <= channels.keys():
        return np.stack([channels[name] for name in "RGBA" if name in channels], axis=-1)
    if len(channels) == 1 or "Y" in channels:
        return channels.get("Y", next(iter(channels.values())))
    raise ValueError(f"{path} has the channels {', '.join(channels)}: R, G, B or one alone was expected")


def _decode(data: bytes) -> np.ndarray | None:
    with quiet_opencv():
        try:
            return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error:
            return None


def _encode(image: np.ndarray, suffix: str, path: Path) -> bytes:
    options = {
        ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95],
        ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 95],
        ".webp": [cv2.IMWRITE_WEBP_QUALITY, 101],
    }
    with quiet_opencv():
        try:
            done, encoded = cv2.imencode(suffix, image, options.get(suffix, []))
        except cv2.error as error:
            raise ValueError(f"{path}: OpenCV cannot write this image ({error.err})") from error
    if not done:
        raise ValueError(f"{path}: OpenCV cannot write this image")
    return encoded.tobytes()


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keeps OpenCV's own complaints off the terminal: ours name the file and say what to do."""
    logging = cv2.utils.logging
    level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)
