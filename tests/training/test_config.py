"""Settings are checked, experiments are the published recipes."""

from __future__ import annotations

import dataclasses

import pytest

from stereopsis.data.sources.registry import dataset_entry
from stereopsis.losses import create_loss
from stereopsis.models.registry import create
from stereopsis.training.config import augmentation, list_experiments, read_settings


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.max_step=3", "did you mean trainer.max_steps"),
        ("experiment=overfitt", "there is no experiment 'overfitt'; did you mean overfit"),
        ("data.augment.flipp=1", "did you mean data.augment.flip"),
        ("data.batch_size=many", "'many' of type 'str' could not be converted to Integer"),
        ("loss=smoth_l1", "did you mean smooth_l1"),
        ("nonsense", "there is no setting 'nonsense'"),
    ],
)
def test_what_is_not_a_setting_is_refused_with_the_nearest_name(override: str, said: str) -> None:
    with pytest.raises(ValueError, match=override.split("=")[0]) as raised:
        read_settings([override])
    assert said in str(raised.value)


def test_options_are_given_one_by_one_or_together() -> None:
    apart = read_settings(["experiment=fast", "model.options.width=16", "loss.options.alpha=1.0"])
    together = read_settings(["experiment=fast", "model.options={width: 16}", "loss.options={alpha: 1.0}"])
    assert together == apart
    assert together.model.options == {"width": 16}
    assert together.loss.options == {"alpha": 1.0, "cross_entropy": 2.0}


def test_options_of_networks_and_losses_are_checked_by_these() -> None:
    settings = read_settings(["model.options.max_disparty=3", "loss.options.betta=2"])
    with pytest.raises(ValueError, match="did you mean max_disparity"):
        create(settings.model.name, **settings.model.options)
    with pytest.raises(ValueError, match="did you mean beta"):
        create_loss(settings.loss.name, **settings.loss.options)


@pytest.mark.parametrize("name", list_experiments())
def test_every_experiment_names_a_loss_and_fields_of_its_network(name: str) -> None:
    settings = read_settings([f"experiment={name}"])
    create_loss(settings.loss.name, **settings.loss.options)
    from stereopsis.models.registry import entry

    fields = {field.name for field in dataclasses.fields(entry(settings.model.name).config)}
    assert set(settings.model.options) <= fields


@pytest.mark.parametrize("name", list_experiments())
def test_every_experiment_learns_from_data_sets_and_splits_that_there_are(name: str) -> None:
    for source in read_settings([f"experiment={name}"]).data.sources:
        assert source.name == "synthetic" or source.split in dataset_entry(source.name).card.splits


# From the published programs' scripts: rate, weight decay, steps, batch, crop (height, width), schedule.
_RECIPES = {
    "raft-stereo-sceneflow": (2e-4, 1e-5, 200_000, 8, [320, 720], "one-cycle"),
    "raft-stereo-middlebury": (2e-5, 1e-5, 4_000, 2, [384, 1000], "one-cycle"),
    "igev-stereo-sceneflow": (2e-4, 1e-5, 200_000, 8, [320, 736], "one-cycle"),
    "igev-stereo-kitti": (2e-4, 1e-5, 200_000, 8, [320, 736], "one-cycle"),
    "igev-plusplus-rt-sceneflow": (2e-4, 1e-5, 200_000, 8, [320, 768], "one-cycle"),
    "selective-igev-sceneflow": (2e-4, 1e-5, 200_000, 8, [320, 736], "one-cycle"),
    "selective-raft-sceneflow": (2e-4, 1e-5, 200_000, 8, [320, 720], "one-cycle"),
    "stereonet-sceneflow": (1e-3, 1e-4, 20 * 35_454, 1, [513, 912], "exponential"),
    "stereonet-keystone": (2.54e-4, 1e-4, 21 * 31_653, 1, None, "exponential"),
    "psmnet-sceneflow": (1e-3, 0.0, 10 * 2_954, 12, [256, 512], "constant"),
    "psmnet-kitti2015": (1e-3, 0.0, 4_000, 12, [256, 512], "steps"),
    "hsmnet": (1e-3, 0.0, 43_169, 28, [512, 768], "steps"),
    "smd-psmnet-unrealstereo4k": (1e-4, 0.0, 200 * 1_930, 4, [1536, 2048], "steps"),
    "smd-hsmnet-unrealstereo4k": (1e-4, 0.0, 200 * 1_930, 4, [1536, 2048], "steps"),
    "smd-stereodepth-unrealstereo4k": (1e-4, 0.0, 200 * 1_930, 4, [1536, 2048], "steps"),
    "smd-psmnet-kitti2015": (1e-4, 0.0, 200 * 50, 4, [256, 896], "steps"),
    "gmstereo-scale1-sceneflow": (1e-3, 1e-4, 100_000, 64, [384, 768], "one-cycle-cosine"),
    "gmstereo-scale2-sceneflow": (1e-3, 1e-4, 100_000, 32, [384, 768], "one-cycle-cosine"),
    "gmstereo-sceneflow": (4e-4, 1e-4, 100_000, 16, [384, 768], "one-cycle-cosine"),
    "gmstereo-vkitti2": (4e-4, 1e-4, 30_000, 16, [320, 832], "one-cycle-cosine"),
    "gmstereo-kitti": (4e-4, 1e-4, 10_000, 16, [352, 1216], "one-cycle-cosine"),
    "crestereo": (4e-4, 0.0, 300_000, 32, [384, 512], "trapezoid"),
    "sttr-sceneflow": (1e-4, 1e-4, 15 * 35_454, 1, [360, 640], "constant"),
    "sttr-kitti": (1e-4, 1e-4, 400 * 394, 1, [200, 640], "exponential"),
    "sydenet-sceneflow": (2e-4, 1e-5, 200_000, 12, [320, 736], "one-cycle"),
    "sydenet-kitti": (1e-4, 1e-5, 50_000, 12, [320, 736], "one-cycle"),
    "sydenet-eth3d": (1e-4, 1e-5, 100_000, 12, [320, 736], "one-cycle"),
    "sydenet-middlebury": (1e-4, 1e-5, 100_000, 8, [352, 896], "one-cycle"),
    "sydenet-scared": (1e-4, 1e-5, 2_000, 3, [320, 736], "one-cycle"),
    "igev-plusplus-sceneflow": (2e-4, 1e-5, 200_000, 8, [256, 768], "one-cycle"),
    "coex": (1e-3, 0.0, 44_310, 8, [288, 576], "steps"),
    "aanet": (1e-3, 1e-4, 35_392, 64, [288, 576], "steps"),
    "aanet-plus": (1e-3, 1e-4, 35_392, 64, [288, 576], "steps"),
    "aanet-kitti": (1e-3, 1e-4, 12_000, 32, [336, 960], "steps"),
    "aanet-plus-kitti": (1e-3, 1e-4, 12_000, 32, [288, 1152], "steps"),
}


@pytest.mark.parametrize("name", _RECIPES)
def test_published_recipes_keep_their_numbers(name: str) -> None:
    settings = read_settings([f"experiment={name}"])
    chosen = settings.optimizer
    found = (
        chosen.lr,
        chosen.weight_decay,
        settings.trainer.max_steps,
        settings.data.batch_size,
        settings.data.crop,
        chosen.schedule,
    )
    assert found == _RECIPES[name]


def test_every_published_recipe_is_held_to_its_numbers() -> None:
    ours = {"overfit", "fast", "distil", "igev-plusplus-rt"}
    assert set(list_experiments()) - ours == set(_RECIPES)


def test_hsmnets_recipe_has_the_published_augmentation_of_each_data_set() -> None:
    data = read_settings(["experiment=hsmnet"]).data
    found = {source.name: augmentation(data, source) for source in data.sources}
    zoom = {name: tuple(round(2**bound, 3) for bound in chosen.scale) for name, chosen in found.items()}
    near, far = {"carla", "middlebury2014"}, {"sceneflow", "kitti2015", "kitti2012", "eth3d"}
    assert found.keys() == near | far
    assert {zoom[name] for name in near} == {(0.225, 0.6)}
    assert {zoom[name] for name in far} == {(0.9, 2.4)}
    assert {tuple(found[name].exposure) for name in near} == {(0.8, 1.2)}
    assert {tuple(found[name].exposure) for name in far} == {(0.5, 2.0)}
    assert {name for name in found if found[name].flip == 0.5} == near | {"sceneflow"}
    for chosen in found.values():
        assert (chosen.gamma, chosen.contrast, chosen.asymmetric) == ([0.8, 1.2], 0.2, 1.0)
        assert (chosen.misalign, chosen.misalign_turn, chosen.misalign_shift) == (0.5, 0.1, 2.0)
        assert (chosen.erase, chosen.erase_count, chosen.erase_size) == (0.5, [1, 1], [100, 300])
        assert chosen.erase_last
        assert chosen.pad
    assert [(s.name, s.weight) for s in data.sources][:3] == [
        ("carla", 40 * 780),
        ("middlebury2014", 500 * 23),
        ("sceneflow", 35_454),
    ]


@pytest.mark.parametrize("wrong", ["{flop: 0.5}", "{flip: often}"])
def test_a_sources_own_augmentation_must_fit(wrong: str) -> None:
    with pytest.raises(ValueError, match="source synthetic"):
        read_settings(["experiment=fast", f"data.sources=[{{name: synthetic, augment: {wrong}}}]"])


@pytest.mark.parametrize("key", ["data.batch_size", "trainer.accumulate", "trainer.devices", "trainer.nodes"])
def test_there_is_at_least_one_of_what_is_counted(key: str) -> None:
    with pytest.raises(ValueError, match=f"{key} is at least 1, not 0"):
        read_settings(["experiment=overfit", f"{key}=0"])
