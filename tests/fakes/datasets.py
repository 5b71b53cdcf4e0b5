"""Tiny data sets in each official layout: a writer puts scenes under `root` and says what to expect."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fakes.tiny import (
    Tiny,
    tiny,
    unknown_as,
    write_hdf5,
    write_image,
    write_jpeg,
    write_npy,
    write_pfm,
    write_png8,
    write_png16,
    write_text,
)


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What opening the only pair of a split must give; None: absent. step: of the stored disparity."""

    split: str
    name: str
    left: np.ndarray
    right: np.ndarray
    disparity: np.ndarray
    known: np.ndarray
    disparity_right: np.ndarray | None = None
    known_right: np.ndarray | None = None
    occluded: np.ndarray | None = None
    step: float = 0.0
    focal: float | None = None
    baseline: float | None = None
    doffs: float = 0.0
    regions: dict[str, np.ndarray] = field(default_factory=dict)


Writer = Callable[[Path], list[Expected]]
WRITERS: dict[str, Writer] = {}


def writer(name: str) -> Callable[[Writer], Writer]:
    def add(function: Writer) -> Writer:
        WRITERS[name] = function
        return function

    return add


def _expected(scene: Tiny, split: str, name: str, *, two_views: bool = True, **facts: object) -> Expected:
    if two_views:
        facts = {"disparity_right": scene.disparity_right, "known_right": scene.known_right} | facts
    given = {
        "left": scene.left,
        "right": scene.right,
        "disparity": scene.disparity,
        "known": scene.known,
    }
    return Expected(split=split, name=name, **(given | facts))  # type: ignore[arg-type]


@writer("sceneflow")
def sceneflow(root: Path) -> list[Expected]:
    expected = []
    places = (
        ("FlyingThings3D", "TRAIN/A/0000", "flyingthings-clean", 1050.0),
        ("FlyingThings3D", "TEST/B/0001", "test-clean", 1050.0),
        ("Monkaa", "a_rain_of_stones_x2", "monkaa-clean", 1050.0),
        ("Driving", "15mm_focallength/scene_forwards/fast", "driving-clean", 450.0),
    )
    for seed, (part, below, split, focal) in enumerate(places):
        scene = tiny(seed, dense=True)
        base = root / part
        write_image(base / "frames_cleanpass" / below / "left" / "0006.png", scene.left)
        write_image(base / "frames_cleanpass" / below / "right" / "0006.png", scene.right)
        write_pfm(base / "disparity" / below / "left" / "0006.pfm", scene.disparity)
        write_pfm(base / "disparity" / below / "right" / "0006.pfm", scene.disparity_right)
        name = f"{part}/frames_cleanpass/{below}/left/0006"
        expected.append(_expected(scene, split, name, focal=focal, baseline=1.0))
    subset = tiny(9, dense=True)
    base = root / "FlyingThings3D_subset" / "val"
    for side, image, truth in (
        ("left", subset.left, -subset.disparity),
        ("right", subset.right, subset.disparity_right),
    ):
        write_image(base / "image_final" / side / "0000003.png", image)
        write_pfm(base / "disparity" / side / "0000003.pfm", truth)
    write_image(base / "disparity_occlusions/left/0000003.png", subset.hidden.astype(np.uint8) * 255)
    name = "val/image_final/left/0000003"
    expected.append(
        _expected(subset, "subset-val-final", name, occluded=subset.hidden, focal=1050.0, baseline=1.0)
    )
    return expected


@writer("spring")
def spring(root: Path) -> list[Expected]:
    """Truth is stored at twice the image's size, in image pixels; every second value is the image's."""
    scene = tiny(11)
    sequence = root / "train" / "0001"
    write_image(sequence / "frame_left" / "frame_left_0001.png", scene.left)
    write_image(sequence / "frame_right" / "frame_right_0001.png", scene.right)
    for side, truth, known in (
        ("left", scene.disparity, scene.known),
        ("right", scene.disparity_right, scene.known_right),
    ):
        fine = np.full((2 * truth.shape[0], 2 * truth.shape[1]), 99.0, np.float32)
        fine[::2, ::2] = np.where(known, truth, np.nan)
        write_hdf5(sequence / f"disp1_{side}" / f"disp1_{side}_0001.dsp5", disparity=fine)
    write_text(sequence / "cam_data" / "intrinsics.txt", "1100.0 1100.0 7.5 5.5\n")
    name = "train/0001/frame_left/frame_left_0001"
    return [_expected(scene, "train", name, focal=1100.0, baseline=0.065)]


_KITTI2012_CALIB = "\n".join(
    f"P{camera}: 7.0e+02 0 6.0e+02 {offset} 0 7.0e+02 1.8e+02 0 0 0 1 0"
    for camera, offset in enumerate((0.0, -350.0, 0.0, -378.0))
)


@writer("kitti2012")
def kitti2012(root: Path) -> list[Expected]:
    scene, base = tiny(0), root / "training"
    write_image(base / "colored_0/000003_10.png", scene.left)
    write_image(base / "colored_1/000003_10.png", scene.right)
    write_png16(base / "disp_occ/000003_10.png", scene.disparity, scene.known, 256)
    write_png16(base / "disp_noc/000003_10.png", scene.disparity, scene.known & ~scene.hidden, 256)
    write_text(base / "calib/000003.txt", _KITTI2012_CALIB)
    gray = tiny(1)
    left, right = gray.left[..., 0], gray.right[..., 0]
    write_image(base / "image_0/000003_10.png", left)
    write_image(base / "image_1/000003_10.png", right)
    colour = _expected(
        scene, "train", "000003_10", two_views=False, occluded=scene.hidden, focal=700.0, baseline=0.54
    )
    repeated = {"left": np.stack([left] * 3, -1), "right": np.stack([right] * 3, -1)}
    return [
        colour,
        _expected(
            scene,
            "train-gray",
            "000003_10",
            two_views=False,
            occluded=scene.hidden,
            focal=700.0,
            baseline=0.5,
            **repeated,
        ),
    ]


@writer("kitti2015")
def kitti2015(root: Path) -> list[Expected]:
    scene, base = tiny(0), root / "training"
    write_image(base / "image_2/000007_10.png", scene.left)
    write_image(base / "image_3/000007_10.png", scene.right)
    write_png16(base / "disp_occ_0/000007_10.png", scene.disparity, scene.known, 256)
    write_png16(base / "disp_noc_0/000007_10.png", scene.disparity, scene.known & ~scene.hidden, 256)
    write_png16(base / "disp_occ_1/000007_10.png", scene.disparity_right, scene.known_right, 256)
    objects = np.random.default_rng(5).integers(0, 3, scene.known.shape, dtype=np.uint8)
    write_image(base / "obj_map/000007_10.png", objects)
    lines = [
        f"P_rect_{camera:02}: 7e2 0 6e2 {offset} 0 7e2 1.8e2 0 0 0 1 0"
        for camera, offset in ((2, 0), (3, -378))
    ]
    write_text(base / "calib_cam_to_cam/000007.txt", "\n".join(lines))
    return [
        _expected(
            scene,
            "train",
            "000007_10",
            occluded=scene.hidden,
            focal=700.0,
            baseline=0.54,
            regions={"foreground": objects > 0},
        )
    ]


@writer("middlebury2001")
def middlebury2001(root: Path) -> list[Expected]:
    scene = tiny(0)
    quarter = {"disparity": scene.disparity / 4, "disparity_right": scene.disparity_right / 4}
    write_image(root / "venus/im2.ppm", scene.left)
    write_image(root / "venus/im6.ppm", scene.right)
    write_png8(root / "venus/disp2.pgm", quarter["disparity"], scene.known, 8)
    write_png8(root / "venus/disp6.pgm", quarter["disparity_right"], scene.known_right, 8)
    return [_expected(scene, "all", "venus", step=1 / 8, **quarter)]


@writer("middlebury2003")
def middlebury2003(root: Path) -> list[Expected]:
    expected = []
    for seed, (folder, suffix, split, scale) in enumerate(
        (("teddy", "png", "quarter", 4), ("conesH", "ppm", "half", 2), ("conesF", "ppm", "full", 1))
    ):
        scene = tiny(seed)
        maps = "png" if suffix == "png" else "pgm"
        write_image(root / folder / f"im2.{suffix}", scene.left)
        write_image(root / folder / f"im6.{suffix}", scene.right)
        write_png8(root / folder / f"disp2.{maps}", scene.disparity, scene.known, scale)
        write_png8(root / folder / f"disp6.{maps}", scene.disparity_right, scene.known_right, scale)
        expected.append(_expected(scene, split, folder, step=1 / scale))
    return expected


def _views_1_and_5(root: Path, *, nested: bool) -> list[Expected]:
    expected = []
    for seed, (folder, split, scale) in enumerate(
        (("ThirdSize", "third", 3), ("HalfSize", "half", 2), ("FullSize", "full", 1))
    ):
        scene, base = tiny(seed), root / folder / "Aloe"
        views = base / "Illum1" / "Exp0" if nested else base
        write_image(views / "view1.png", scene.left)
        write_image(views / "view5.png", scene.right)
        write_png8(base / "disp1.png", scene.disparity, scene.known, scale)
        write_png8(base / "disp5.png", scene.disparity_right, scene.known_right, scale)
        write_text(base / "dmin.txt", "270\n")
        geometry = {"focal": 3740 / scale, "baseline": 0.16, "doffs": 270 / scale}
        expected.append(_expected(scene, split, "Aloe", step=1 / scale, **geometry))
    return expected


@writer("middlebury2005")
def middlebury2005(root: Path) -> list[Expected]:
    return _views_1_and_5(root, nested=True)


@writer("middlebury2006")
def middlebury2006(root: Path) -> list[Expected]:
    return _views_1_and_5(root, nested=False)


_CALIB = """cam0=[3000 0 1500; 0 3000 1000; 0 0 1]
cam1=[3000 0 1530; 0 3000 1000; 0 0 1]
doffs=30
baseline=190
width=16
height=12
ndisp=64
"""


def _modern(
    folder: Path, scene: Tiny, truth: tuple[str, str], *, right: str = "im1.png", mask: bool = False
) -> None:
    write_image(folder / "im0.png", scene.left)
    write_image(folder / right, scene.right)
    write_text(folder / "calib.txt", _CALIB)
    if truth[0]:
        write_pfm(folder / truth[0], unknown_as(scene.disparity, scene.known, np.inf))
    if truth[1]:
        write_pfm(folder / truth[1], unknown_as(scene.disparity_right, scene.known_right, np.inf))
    if mask:
        write_image(
            folder / "mask0nocc.png",
            np.where(scene.hidden, 128, np.where(scene.known, 255, 0)).astype(np.uint8),
        )


_MODERN = {"focal": 3000.0, "baseline": 0.19, "doffs": 30.0}


@writer("middlebury2014")
def middlebury2014(root: Path) -> list[Expected]:
    scene, other = tiny(0), tiny(1)
    _modern(root / "Bicycle1-perfect", scene, ("disp0.pfm", "disp1.pfm"))
    write_image(root / "Bicycle1-perfect" / "im1E.png", other.right)
    return [
        _expected(scene, "perfect", "Bicycle1-perfect", **_MODERN),
        _expected(scene, "perfect-exposure", "Bicycle1-perfect", **(_MODERN | {"right": other.right})),
    ]


@writer("middlebury-v3")
def middlebury_v3(root: Path) -> list[Expected]:
    scene = tiny(0)
    _modern(root / "MiddEval3/trainingQ/Adirondack", scene, ("disp0GT.pfm", "disp1GT.pfm"), mask=True)
    return [_expected(scene, "trainingQ", "Adirondack", occluded=scene.hidden, **_MODERN)]


@writer("middlebury2021")
def middlebury2021(root: Path) -> list[Expected]:
    scene = tiny(0)
    _modern(root / "data/artroom1", scene, ("disp0.pfm", "disp1.pfm"))
    return [_expected(scene, "all", "artroom1", **_MODERN)]


@writer("eth3d")
def eth3d(root: Path) -> list[Expected]:
    scene = tiny(0)
    _modern(root / "two_view_training/delivery_area_1l", scene, ("", ""))
    apart = root / "two_view_training_gt/delivery_area_1l"
    write_pfm(apart / "disp0GT.pfm", unknown_as(scene.disparity, scene.known, np.inf))
    write_image(
        apart / "mask0nocc.png", np.where(scene.hidden, 128, np.where(scene.known, 255, 0)).astype(np.uint8)
    )
    return [_expected(scene, "train", "delivery_area_1l", two_views=False, occluded=scene.hidden, **_MODERN)]


@writer("carla")
def carla(root: Path) -> list[Expected]:
    scene = tiny(0)
    _modern(root / "carla-highres/trainingF/0_0", scene, ("disp0GT.pfm", "disp1GT.pfm"))
    return [_expected(scene, "train", "0_0", **_MODERN)]


@writer("unrealstereo4k")
def unrealstereo4k(root: Path) -> list[Expected]:
    scene = tiny(0, dense=True)
    base = root / "00002"
    write_image(base / "Image0/00014.png", scene.left)
    write_image(base / "Image1/00014.png", scene.right)
    write_npy(base / "Disp0/00014.npy", scene.disparity.astype(np.float32))
    write_npy(base / "Disp1/00014.npy", scene.disparity_right.astype(np.float32))
    turn = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    for camera, centre in enumerate(([1.0, 2.0, 3.0], [1.0, 2.3, 3.4])):
        pose = np.hstack([turn, -turn @ np.array(centre)[:, None]])
        lines = [" ".join(map(str, row)) for row in ([1920, 0, 8, 0, 1920, 6, 0, 0, 1], pose.ravel())]
        write_text(base / f"Extrinsics{camera}/00014.txt", "\n".join(lines))
    line = "00002/Image0/00014.png 00002/Image1/00014.png 00002/Disp0/00014.npy 00002/Disp1/00014.npy\n"
    write_text(root / "filenames/test.txt", line)
    facts = {"focal": 1920.0, "baseline": 0.5}
    name = "00002/Image0/00014"
    return [_expected(scene, "all", name, **facts), _expected(scene, "test", name, **facts)]


@writer("unrealstereo4k-active")
def unrealstereo4k_active(root: Path) -> list[Expected]:
    scene = tiny(0, dense=True)
    gray, pattern = scene.left[..., 0], scene.right[..., 0]
    write_image(root / "00000/Image0/00001.png", gray)
    write_image(root / "imgLaser.png", pattern)
    write_npy(root / "00000/Disp0/00001.npy", scene.disparity.astype(np.float32))
    write_text(root / "test.txt", "00000/Image0/00001.png 00000/Disp0/00001.npy\n")
    repeated = {"left": np.stack([gray] * 3, -1), "right": np.stack([pattern] * 3, -1)}
    return [_expected(scene, "test", "00000/Image0/00001", two_views=False, **repeated)]


@writer("instereo2k")
def instereo2k(root: Path) -> list[Expected]:
    scene, base = tiny(0), root / "train/part1/000000"
    write_image(base / "left.png", scene.left)
    write_image(base / "right.png", scene.right)
    write_png16(base / "left_disp.png", scene.disparity, scene.known, 100)
    write_png16(base / "right_disp.png", scene.disparity_right, scene.known_right, 100)
    return [_expected(scene, "train", "train/part1/000000", step=0.01)]


@writer("sintel")
def sintel(root: Path) -> list[Expected]:
    scene, base = tiny(0, dense=True), root / "training"
    frame = "alley_1/frame_0001.png"
    write_image(base / "final_left" / frame, scene.left)
    write_image(base / "final_right" / frame, scene.right)
    packed = np.rint(scene.disparity * 16384).astype(np.int64)
    red, rest = np.divmod(packed, 4 * 16384)
    green, blue = np.divmod(rest, 256)
    write_image(base / "disparities" / frame, np.stack([red, green, blue], -1).astype(np.uint8))
    write_image(base / "occlusions" / frame, scene.hidden.astype(np.uint8) * 255)
    outside = np.zeros_like(scene.hidden)
    outside[:, :2] = True
    write_image(base / "outofframe" / frame, outside.astype(np.uint8) * 255)
    name = "final_left/alley_1/frame_0001"
    return [_expected(scene, "final", name, two_views=False, occluded=scene.hidden | outside, step=2 / 16384)]


@writer("crestereo")
def crestereo(root: Path) -> list[Expected]:
    scene = tiny(0)
    left = write_jpeg(_made(root / "tree") / "000001_left.jpg", scene.left)
    right = write_jpeg(root / "tree/000001_right.jpg", scene.right)
    write_png16(root / "tree/000001_left.disp.png", scene.disparity, scene.known, 32)
    write_png16(root / "tree/000001_right.disp.png", scene.disparity_right, scene.known_right, 32)
    return [_expected(scene, "tree", "tree/000001_left", left=left, right=right, step=1 / 32)]


@writer("tartanair")
def tartanair(root: Path) -> list[Expected]:
    scene, base = tiny(0, dense=True), root / "abandonedfactory/Easy/P000"
    write_image(base / "image_left/000004_left.png", scene.left)
    write_image(base / "image_right/000004_right.png", scene.right)
    write_npy(base / "depth_left/000004_left_depth.npy", (80 / scene.disparity).astype(np.float32))
    write_npy(base / "depth_right/000004_right_depth.npy", (80 / scene.disparity_right).astype(np.float32))
    name = "abandonedfactory/Easy/P000/image_left/000004_left"
    return [_expected(scene, "Easy", name, step=1e-5, focal=320.0, baseline=0.25)]


@writer("fallingthings")
def fallingthings(root: Path) -> list[Expected]:
    scene, base = tiny(0, dense=True), _made(root / "mixed/kitchen_0")
    left = write_jpeg(base / "000000.left.jpg", scene.left)
    right = write_jpeg(base / "000000.right.jpg", scene.right)
    intrinsics = {"fx": 768.16, "fy": 768.16, "cx": 480.0, "cy": 270.0}
    settings = {"camera_settings": [{"name": "left", "intrinsic_settings": intrinsics}]}
    write_text(base / "_camera_settings.json", json.dumps(settings))
    maps = []
    for side, disparity in (("left", scene.disparity), ("right", scene.disparity_right)):
        depth = np.rint(768.16 * 0.06 / np.maximum(disparity, 8) * 10000)
        write_image(base / f"000000.{side}.depth.png", depth.astype(np.uint16))
        maps.append(768.16 * 0.06 * 10000 / depth)
    facts = {"disparity": maps[0], "disparity_right": maps[1], "left": left, "right": right}
    return [
        _expected(
            scene, "mixed", "mixed/kitchen_0/000000.left", step=1e-4, focal=768.16, baseline=0.06, **facts
        )
    ]


@writer("vkitti2")
def vkitti2(root: Path) -> list[Expected]:
    scene, base = tiny(0, dense=True), root / "Scene01/clone/frames"
    left = write_jpeg(_made(base / "rgb/Camera_0") / "rgb_00002.jpg", scene.left)
    right = write_jpeg(_made(base / "rgb/Camera_1") / "rgb_00002.jpg", scene.right)
    maps = []
    for camera, disparity in enumerate((scene.disparity, scene.disparity_right)):
        centimetres = np.rint(725.0087 * 0.532725 / disparity * 100).clip(1, 65535)
        write_image(base / f"depth/Camera_{camera}/depth_00002.png", centimetres.astype(np.uint16))
        maps.append(725.0087 * 0.532725 * 100 / centimetres)
    facts = {"disparity": maps[0], "disparity_right": maps[1], "left": left, "right": right}
    name = "Scene01/clone/frames/rgb/Camera_0/rgb_00002"
    return [_expected(scene, "clone", name, step=1e-4, focal=725.0087, baseline=0.532725, **facts)]


@writer("drivingstereo")
def drivingstereo(root: Path) -> list[Expected]:
    train, cloudy = tiny(0), tiny(1)
    for kind, image in (("left-image", train.left), ("right-image", train.right)):
        write_image(root / f"train-{kind}/2018-07-09/a.png", image)
    write_png16(root / "train-disparity-map/2018-07-09/a.png", train.disparity, train.known, 256)
    for kind, image in (("left-image", cloudy.left), ("right-image", cloudy.right)):
        write_image(root / f"cloudy/{kind}-full-size/b.png", image)
    write_png16(root / "cloudy/disparity-map-full-size/b.png", cloudy.disparity, cloudy.known, 128)
    return [
        _expected(train, "train", "train-left-image/2018-07-09/a", two_views=False, step=1 / 256),
        _expected(cloudy, "cloudy-full", "cloudy/left-image-full-size/b", two_views=False, step=1 / 128),
    ]


@writer("booster")
def booster(root: Path) -> list[Expected]:
    scene, base = tiny(0), root / "train/balanced/Bathroom"
    write_image(base / "camera_00/im0.png", scene.left)
    write_image(base / "camera_02/im0.png", scene.right)
    write_npy(base / "disp_00.npy", unknown_as(scene.disparity, scene.known, 0))
    write_npy(base / "disp_02.npy", unknown_as(scene.disparity_right, scene.known_right, 0))
    write_image(base / "mask_00.png", np.where(scene.hidden, 0, 255).astype(np.uint8))
    material = np.random.default_rng(3).integers(0, 4, scene.known.shape, dtype=np.uint8)
    write_image(base / "mask_cat.png", material)
    matrix = "<{0} type_id='opencv-matrix'><rows>3</rows><cols>4</cols><dt>d</dt><data>{1}</data></{0}>"
    numbers = "6000. 0. {} 0. 0. 6000. 1500. 0. 0. 0. 1. 0."
    xml = "".join(
        matrix.format(f"proj_mat{side}", numbers.format(cx)) for side, cx in (("L", 2000), ("R", 2010))
    )
    text = f"<?xml version='1.0'?><opencv_storage>{xml}<baselineLR>80.</baselineLR></opencv_storage>"
    write_text(base / "calib_00-02.xml", text)
    regions = {f"class-{kind}": material == kind for kind in range(4)}
    facts = {"occluded": scene.hidden, "focal": 6000.0, "baseline": 0.08, "doffs": 10.0, "regions": regions}
    return [_expected(scene, "train", "Bathroom/camera_00/im0", **facts)]


@writer("argoverse")
def argoverse(root: Path) -> list[Expected]:
    scene = tiny(0)
    log = root / "rectified_stereo_images_v1.1/train/log1"
    left = write_jpeg(_made(log / "stereo_front_left_rect") / "stereo_front_left_rect_17.jpg", scene.left)
    right = write_jpeg(_made(log / "stereo_front_right_rect") / "stereo_front_right_rect_17.jpg", scene.right)
    truth = root / "disparity_maps_v1.1/train/log1"
    write_png16(
        truth / "stereo_front_left_rect_disparity/disparity_17.png", scene.disparity, scene.known, 256
    )
    objects = truth / "stereo_front_left_rect_objects_disparity/disparity_17.png"
    write_png16(objects, scene.disparity, scene.hidden, 256)
    name = "log1/stereo_front_left_rect/stereo_front_left_rect_17"
    facts = {"left": left, "right": right, "regions": {"foreground": scene.hidden}}
    return [_expected(scene, "train", name, two_views=False, **facts)]


@writer("fsd")
def fsd(root: Path) -> list[Expected]:
    scene, base = tiny(0, dense=True), root / "kitchen_1/dataset/data"
    left = write_jpeg(_made(base / "left/rgb") / "0000.jpg", scene.left)
    right = write_jpeg(_made(base / "right/rgb") / "0000.jpg", scene.right)
    value = np.rint(scene.disparity * 1000).astype(np.int64)
    red, rest = np.divmod(value, 255 * 255)
    packed = np.stack([red, *np.divmod(rest, 255)], -1).astype(np.uint8)
    write_image(base / "left/disparity/0000.png", packed)
    name = "kitchen_1/dataset/data/left/rgb/0000"
    return [_expected(scene, "train", name, two_views=False, left=left, right=right)]


@writer("scared")
def scared(root: Path) -> list[Expected]:
    """A pair that is rectified already, its points computed from disparity; and a list."""
    scene, base = tiny(0, size=(24, 32)), root / "dataset_8/keyframe_1"
    focal, baseline = 40.0, 0.005
    write_image(base / "Left_Image.png", scene.left)
    write_image(base / "Right_Image.png", scene.right)
    rows, columns = np.mgrid[:24, :32]
    for side, disparity, known in (
        ("left", scene.disparity, scene.known),
        ("right", scene.disparity_right, scene.known_right),
    ):
        depth = focal * baseline * 1000 / disparity
        points = np.stack([(columns - 15.5) / focal * depth, (rows - 11.5) / focal * depth, depth], -1)
        write_image(
            base / f"{side}_depth_map.tiff", np.where(known[..., None], points, np.nan).astype(np.float32)
        )
    matrix = "{0}: !!opencv-matrix\n   rows: {1}\n   cols: {2}\n   dt: d\n   data: [ {3} ]\n"
    numbers = {
        "M1": (3, 3, "40., 0., 15.5, 0., 40., 11.5, 0., 0., 1."),
        "D1": (1, 5, "0., 0., 0., 0., 0."),
        "M2": (3, 3, "40., 0., 15.5, 0., 40., 11.5, 0., 0., 1."),
        "D2": (1, 5, "0., 0., 0., 0., 0."),
        "R": (3, 3, "1., 0., 0., 0., 1., 0., 0., 0., 1."),
        "T": (3, 1, "-5., 0., 0."),
    }
    text = "%YAML:1.0\n---\n" + "".join(matrix.format(name, *values) for name, values in numbers.items())
    write_text(base / "endoscope_calibration.yaml", text)
    listed = tiny(1)
    write_image(root / "frames/l0.png", listed.left)
    write_image(root / "frames/r0.png", listed.right)
    write_png16(root / "frames/d0.png", listed.disparity, listed.known, 128)
    write_text(root / "test_list.txt", "frames/l0.png frames/r0.png frames/d0.png\n")
    return [
        _expected(scene, "keyframes-test", "dataset_8/keyframe_1", step=1e-4, focal=focal, baseline=baseline),
        _expected(listed, "list-test", "frames/l0", two_views=False),
    ]


@writer("csv")
def csv(root: Path) -> list[Expected]:
    scene = tiny(0)
    write_image(root / "a/l.png", scene.left)
    write_image(root / "a/r.png", scene.right)
    write_png8(root / "a/d.png", scene.disparity, scene.known, 4)
    write_image(root / "a/o.png", scene.hidden.astype(np.uint8) * 255)
    write_text(root / "k.json", json.dumps({"focal": 500.0, "baseline": 0.1}))
    header, row = (
        "left,right,disparity,encoding,occluded,calibration",
        "a/l.png,a/r.png,a/d.png,png8*4,a/o.png,k.json",
    )
    write_text(root / "mine.csv", f"{header}\n{row}\n")
    facts = {"occluded": scene.hidden, "focal": 500.0, "baseline": 0.1}
    return [_expected(scene, "mine.csv", "a/l", two_views=False, **facts)]


@writer("folder")
def folder(root: Path) -> list[Expected]:
    scene = tiny(0)
    write_image(root / "left/0001.png", scene.left)
    write_image(root / "right/0001.png", scene.right)
    write_npy(root / "disparity/0001.npy", unknown_as(scene.disparity, scene.known, np.nan))
    return [_expected(scene, "truth", "0001", two_views=False)]


@writer("scenes")
def scenes(root: Path) -> list[Expected]:
    scene, base = tiny(0), root / "shelf"
    write_image(base / "left.png", scene.left)
    write_image(base / "right.png", scene.right)
    write_pfm(base / "d.pfm", unknown_as(scene.disparity, scene.known, np.inf))
    write_png16(base / "dr.png", scene.disparity_right, scene.known_right, 256)
    write_image(base / "o.png", scene.hidden.astype(np.uint8) * 7)
    described = {
        "name": "shelf 1",
        "dataset": "shelves",
        "left": "left.png",
        "right": "right.png",
        "disparity_left": {"file": "d.pfm", "encoding": "pfm"},
        "disparity_right": {"file": "dr.png", "encoding": "png16/256"},
        "occlusion_mask": {"file": "o.png", "visible": [0], "occluded": [7], "unknown": []},
        "calibration": {"focal_px": 400, "baseline": 60, "baseline_unit": "mm", "doffs": 2},
    }
    write_text(base / "scene.json", json.dumps(described))
    facts = {"occluded": scene.hidden, "focal": 400.0, "baseline": 0.06, "doffs": 2.0}
    return [_expected(scene, "all", "shelf 1", **facts)]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
