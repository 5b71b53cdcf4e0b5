"""Pairs are found by scene.json, by common names and by equal names in two folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stereopsis.io.pairs import find_pairs


def _touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"-")


def _found(root: Path, where: str | Path | None = None) -> list[tuple[str, str, str]]:
    return [
        (pair.name, pair.left.relative_to(root).as_posix(), pair.right.relative_to(root).as_posix())
        for pair in find_pairs(root if where is None else where)
    ]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("im0.png", "im1.png"),
        ("left.jpg", "right.jpg"),
        ("left.png", "right.tiff"),
        ("view1.png", "view5.png"),
        ("im2.ppm", "im6.ppm"),
        ("0.png", "1.png"),
        ("L.png", "R.png"),
        ("Left.PNG", "Right.PNG"),
        ("spirit-06l.png", "spirit-06r.png"),
        ("image_left_007.png", "image_right_007.png"),
    ],
)
def test_common_names(tmp_path: Path, left: str, right: str) -> None:
    _touch(tmp_path, f"a/{left}", f"a/{right}", "a/notes.txt")
    assert _found(tmp_path) == [("a", f"a/{left}", f"a/{right}")]
    assert _found(tmp_path, tmp_path / "a") == [("a", f"a/{left}", f"a/{right}")]


def test_truth_and_masks_are_no_pairs(tmp_path: Path) -> None:
    _touch(tmp_path, "a/im0.png", "a/im1.png", "a/disp_left.png", "a/disp_right.png", "a/left_gray.png")
    _touch(tmp_path, "b/disp_left.png", "b/disp_right.png", "b/x_left.png", "b/x_right.png")
    assert [pair[0] for pair in _found(tmp_path)] == ["a", "b"]


def test_many_pairs_in_one_folder(tmp_path: Path) -> None:
    _touch(tmp_path, "a/01_left.png", "a/01_right.png", "a/02_left.png", "a/02_right.png", "a/03_right.png")
    assert [pair[0] for pair in _found(tmp_path)] == ["a/01_left", "a/02_left"]


@pytest.mark.parametrize(
    ("left", "right"), [("left", "right"), ("image_2", "image_3"), ("scene_left", "scene_right")]
)
def test_equal_names_in_two_folders(tmp_path: Path, left: str, right: str) -> None:
    _touch(tmp_path, f"x/{left}/1.png", f"x/{left}/sub/2.png", f"x/{right}/1.jpg", f"x/{right}/sub/2.png")
    assert _found(tmp_path) == [
        ("x/1", f"x/{left}/1.png", f"x/{right}/1.jpg"),
        ("x/sub/2", f"x/{left}/sub/2.png", f"x/{right}/sub/2.png"),
    ]
    assert [pair[0] for pair in _found(tmp_path, tmp_path / "x")] == ["1", "sub/2"]


def test_an_image_without_a_partner_is_named(tmp_path: Path) -> None:
    _touch(tmp_path, "left/1.png", "left/2.png", "right/1.png")
    with pytest.raises(ValueError, match=r"2\.png has no partner"):
        find_pairs(tmp_path)


def test_globs_of_folders_and_of_left_images(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"{scene}/{side}.png" for scene in ("a1", "a2", "b1") for side in ("im0", "im1")))
    expected = [("a1", "a1/im0.png", "a1/im1.png"), ("a2", "a2/im0.png", "a2/im1.png")]
    assert _found(tmp_path, f"{tmp_path}/a*") == expected
    assert [pair[1] for pair in _found(tmp_path, f"{tmp_path}/a*/*.png")] == [pair[1] for pair in expected]
    _touch(tmp_path, "left/1.png", "right/1.png")
    assert _found(tmp_path, f"{tmp_path}/left/*.png") == [("1", "left/1.png", "right/1.png")]


def _scene(folder: Path, **more: object) -> None:
    _touch(folder, "one.png", "two.png")
    (folder / "scene.json").write_text(json.dumps({"left": "one.png", "right": "two.png", **more}))


def test_scenes_bring_calibration_and_whether_they_are_rectified(tmp_path: Path) -> None:
    _scene(tmp_path / "a", calibration={"focal_px": 100, "baseline": 0.1})
    _scene(tmp_path / "b")
    _scene(tmp_path / "c", calibration={"focal_px": 100, "baseline": 1, "baseline_unit": "scene unit"})
    _scene(tmp_path / "d", calibration={"file": "calib.xml"}, rectified=False)
    pairs = find_pairs(tmp_path)
    assert [pair.name for pair in pairs] == ["a", "b", "c", "d"]
    assert [pair.calibration for pair in pairs] == [
        tmp_path / "a/scene.json",
        None,
        None,
        tmp_path / "d/calib.xml",
    ]
    assert [pair.rectified for pair in pairs] == [True, True, True, False]
    assert find_pairs(f"{tmp_path}/*/one.png")[3].rectified is False
    assert find_pairs(tmp_path / "a" / "scene.json") == [pairs[0]]


def test_the_nearest_calibration_is_taken(tmp_path: Path) -> None:
    _touch(tmp_path, "a/im0.png", "a/im1.png", "a/calib.txt", "b/im0.png", "b/im1.png", "calib.json")
    _touch(tmp_path, "kitti/image_2/000003_10.png", "kitti/image_3/000003_10.png")
    _touch(tmp_path, "kitti/calib_cam_to_cam/000003.txt")
    assert [pair.calibration for pair in find_pairs(tmp_path)] == [
        tmp_path / "a/calib.txt",
        tmp_path / "calib.json",
        tmp_path / "kitti/calib_cam_to_cam/000003.txt",
    ]


def test_names_are_unique(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"a/{name}.png" for name in ("im0", "im1")), "left/a.png", "right/a.png")
    assert [pair.name for pair in find_pairs(tmp_path)] == ["a", "a-2"]


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    _touch(tmp_path, "a/im0.png", "a/im1.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert len(find_pairs(tmp_path)) == 1


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("", "holds no stereo pair: known are scene.json, im0/im1"),
        ("empty_", "did you mean"),
        ("no/thing", "does not exist"),
        ("*.png", "nothing matches"),
        ("file.txt", "is a file"),
        ("lonely", "no stereo pair"),
    ],
)
def test_nothing_to_find_is_said(tmp_path: Path, where: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    _touch(tmp_path, "file.txt", "lonely/im0.png")
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        find_pairs(f"{tmp_path}/{where}")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"left": "a.png"}', '{"left": 1, "right": 2}'])
def test_a_broken_scene_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "scene.json").write_text(content)
    with pytest.raises(ValueError, match=r"scene\.json"):
        find_pairs(tmp_path)
