"""What a recipe yields: clean pairs, flat colours that stay flat, noise that is not clipped, grey that stays grey."""

from __future__ import annotations

import numpy as np
import pytest

from testing import images
from training.degradations import jpeg, resize
from training.recipes import RECIPES, mixed_jpeg, mixed_noise, photo_chain, real_world, repost

PHOTO = images.draw_photo(48, 56)
WHITE = np.full((64, 64, 3), 255, np.uint8)


@pytest.mark.parametrize("degradation", [mixed_noise(25), mixed_jpeg(20)])
def test_one_pair_in_ten_of_a_1x_variant_is_clean(degradation: object) -> None:
    rng = np.random.default_rng(1)
    pairs = [degradation.draw(PHOTO, rng) for _ in range(400)]  # type: ignore[attr-defined]
    assert 0.06 < np.mean([np.array_equal(given, PHOTO) for given in pairs]) < 0.15


def test_noise_is_of_all_strengths_up_to_50_and_most_often_nominal() -> None:
    rng = np.random.default_rng(2)
    middle = np.full((64, 64, 3), 128, np.uint8)
    sigmas = np.array([(mixed_noise(25).draw(middle, rng).astype(np.float64) - 128).std() for _ in range(400)])
    assert 0.38 < (np.abs(sigmas - 25) < 1).mean() < 0.52
    assert sigmas.max() < 52
    for low in range(0, 50, 10):
        assert ((sigmas > low) & (sigmas < low + 10)).any()


def test_half_of_the_noisy_pairs_are_not_clipped_and_keep_the_mean_of_white() -> None:
    rng = np.random.default_rng(3)
    noisy = [given for _ in range(300) if (given := mixed_noise(25).draw(WHITE, rng)) is not WHITE]
    unclipped = [given for given in noisy if given.dtype == np.float32]
    assert 0.4 < len(unclipped) / len(noisy) < 0.6
    assert all(given.max() > 255 for given in unclipped if given.std() > 1)
    assert max(abs(float(given.mean()) - 255) for given in unclipped) < 1.5


def test_jpegs_are_of_all_qualities_up_to_100_and_often_nominal() -> None:
    rng = np.random.default_rng(7)
    damages = [np.abs(mixed_jpeg(20).draw(PHOTO, rng).astype(int) - PHOTO).mean() for _ in range(400)]
    nominal, high = (np.abs(jpeg(PHOTO, quality).astype(int) - PHOTO).mean() for quality in (20, 90))
    assert 0.24 < np.mean([damage == nominal for damage in damages]) < 0.37
    assert 0.03 < np.mean([0 < damage <= high for damage in damages]) < 0.12
    assert max(damages) > 1.2 * nominal


def test_nominal_damage_is_what_the_variant_is_named_for() -> None:
    rng = np.random.default_rng(4)
    middle = np.full((64, 64, 3), 128, np.uint8)
    noisy = RECIPES["compact_color_denoise_25"].degradation.nominal(middle, rng)
    assert noisy.dtype == np.uint8
    assert 24 < (noisy.astype(int) - 128).std() < 26


@pytest.mark.parametrize("variant", RECIPES)
def test_every_recipe_yields_inputs_at_its_scale_and_of_its_channels(variant: str) -> None:
    recipe = RECIPES[variant]
    target = PHOTO[..., : recipe.channels]
    for degrade in (recipe.degradation.draw, recipe.degradation.nominal):
        given = degrade(target, np.random.default_rng(5))
        assert given.shape == (48 // recipe.scale, 56 // recipe.scale, recipe.channels)


def test_two_pairs_in_ten_of_the_real_world_are_bicubic_alone() -> None:
    rng = np.random.default_rng(6)
    clean = resize(PHOTO, 12, 14)
    pairs = [real_world(4).draw(PHOTO, rng) for _ in range(150)]
    assert 0.12 < np.mean([np.array_equal(given, clean) for given in pairs]) < 0.29


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_the_photo_chain_damages_an_image_and_leaves_it_recognisable(scale: int) -> None:
    photo = images.draw_photo(101, 90)
    clean = resize(photo, 101 // scale, 90 // scale).astype(int)
    for seed in range(6):
        made = photo_chain(photo, scale, np.random.default_rng(seed))
        assert made.shape == clean.shape
        assert made.dtype == np.uint8
        assert not np.array_equal(made, clean)
        assert np.abs(made.mean(axis=(0, 1)) - clean.mean(axis=(0, 1))).max() < 4, "the mean colour stays"
        assert np.corrcoef(made.ravel(), clean.ravel())[0, 1] > 0.6


def test_a_repost_leaves_flat_colours_flat_and_damages_photos() -> None:
    rng = np.random.default_rng(7)
    for _ in range(10):
        assert (np.ptp(repost(WHITE, rng), axis=(0, 1)) <= 1).all()
        assert not np.array_equal(repost(PHOTO, rng), PHOTO)


def test_grey_stored_as_rgb_stays_grey_in_the_real_world() -> None:
    grey = images.draw_grey(64, 64)[..., None].repeat(3, axis=2)
    for seed in range(20):
        given = real_world(4).draw(grey, np.random.default_rng(seed))
        assert given.shape == (16, 16, 3)
        assert (given == given[..., :1]).all()
