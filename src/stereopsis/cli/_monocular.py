"""`stereopsis predict --mono`: relative depth of single images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def predict_images(
    inputs: Sequence[str], output: Path, *, model: str | None, weights: Path | None, device: str | None
) -> list[Path]:
    """Writes inverse_depth.npy (relative, larger is nearer) and inverse_depth.png of every image; the files.

    One image's go to the folder itself, those of several to a folder each, of the image's name.
    """
    import torch

    from stereopsis.cli._outputs import check_folder, make_folder
    from stereopsis.io.arrays import write_npy
    from stereopsis.io.images import read_image, write_image
    from stereopsis.prediction.monocular import load_monocular
    from stereopsis.structures import StereoPair
    from stereopsis.visual import disparity_picture

    name = model or weights
    if name is None:
        raise ValueError("name the weights of relative depth: --mono --weights depth_anything_v2_vits.pth")
    images = [Path(part) for part in inputs]
    if len({image.stem for image in images}) < len(images):
        raise ValueError("two images of one name would overwrite each other: predict them one by one")
    check_folder(output)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    predictor = load_monocular(name, weights=weights if model else None, device=device)
    written = []
    for image in images:
        pixels = read_image(image)
        depth = predictor(StereoPair.from_arrays(pixels, pixels).left).inverse_depth
        folder = output if len(images) == 1 else output / image.stem
        make_folder(folder)
        files = (folder / "inverse_depth.npy", folder / "inverse_depth.png")
        write_npy(files[0], depth.numpy())
        write_image(files[1], disparity_picture(depth))
        written += files
    return written
