"""Labelled crops: colours of the truth, no invented structure, files that survive a stop, crops that stay aligned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from training.data import TRAINING_SETS, Crops
from training.degradations import Pixels, resize
from training.drawings import draw_images
from training.label import label
from training.labels import Labels, disagreement, keep_grey, match_low_frequencies, read_labels, write_labels
from training.photo_crops import LOOK_EVERY, PhotoCrops
from training.recipes import RECIPES

RECIPE = RECIPES["compact_real_x4"]


def textured(side: int, seed: int) -> Pixels:
    """An image with structure at every size."""
    small = np.random.default_rng(seed).integers(0, 256, (side // 8, side // 8, 3), np.uint8)
    return resize(small, side, side)


def test_brightness_and_colours_become_those_of_the_truth_and_edges_stay() -> None:
    truth = np.full((1, 96, 96, 3), 100, np.uint8)
    taught = np.full((1, 96, 96, 3), (112, 100, 94), np.uint8)
    taught[:, :, ::2] += 20

    matched = match_low_frequencies(taught, truth).astype(int)

    np.testing.assert_allclose(matched.mean(axis=(0, 1, 2)), 100, atol=0.6)
    np.testing.assert_allclose((matched[:, :, 1::2] - matched[:, :, ::2]).mean(), -20, atol=0.6)


def test_another_structure_disagrees_and_another_sharpness_does_not() -> None:
    truth = textured(64, 0)
    softer = resize(resize(truth, 32, 32), 64, 64)

    assert disagreement(truth, truth) == 0
    assert disagreement(softer, truth) < 0.1
    assert disagreement(textured(64, 1), truth) > 0.5


def test_a_grey_input_gets_a_grey_target() -> None:
    coloured = textured(32, 0)
    grey = coloured[::4, ::4, :1].repeat(3, axis=-1)

    kept = keep_grey(coloured, grey)

    assert (kept == kept[..., :1]).all()
    assert keep_grey(coloured, coloured[::4, ::4]) is coloured


def make_labels(count: int, seed: int, side: int = 24) -> Labels:
    """Inputs, and targets that are the input enlarged by repetition: 1 and 2 levels brighter for truth and teacher."""
    given = np.random.default_rng(seed).integers(0, 250, (count, side, side, 3), np.uint8)
    large = given.repeat(4, axis=1).repeat(4, axis=2)
    return Labels(given, large + np.uint8(1), large + np.uint8(2))


def test_files_are_read_once_each_and_partial_ones_never(tmp_path: Path) -> None:
    for number in range(2):
        write_labels(tmp_path / f"{number:04}.npz", make_labels(3, number))
    (tmp_path / "0002.partial").write_bytes(b"half a file")

    read = dict(read_labels(tmp_path, known=frozenset({"0000.npz"})))

    assert list(read) == ["0001.npz"]
    for name in ("given", "truth", "taught"):
        assert np.array_equal(getattr(read["0001.npz"], name), getattr(make_labels(3, 1), name))


def drawn() -> Crops:
    """The crops that are not labelled."""
    return Crops(draw_images(5, 96, 0), RECIPE, 0)


@pytest.mark.parametrize(("truth_share", "brighter"), [(0.0, 2), (1.0, 1)])
def test_crops_are_aligned_and_the_target_is_the_one_asked_for(
    tmp_path: Path, truth_share: float, brighter: int
) -> None:
    write_labels(tmp_path / "0000.npz", make_labels(4, 0))
    crops = PhotoCrops(tmp_path, drawn(), 4, truth_share=truth_share, seed=0)

    given, target = next(crops.batches(8, labelled=6, others=0))

    assert given.shape == (6, 8, 8, 3)
    assert np.array_equal(given.repeat(4, axis=1).repeat(4, axis=2) + brighter, target)
    assert len({image.tobytes() for image in given}) == 6


def test_colours_of_a_labelled_crop_and_its_target_are_exchanged_alike(tmp_path: Path) -> None:
    labels = make_labels(4, 0)
    tinted = (labels.given // 8 + np.array([0, 80, 160])).astype(np.uint8)
    write_labels(tmp_path / "0000.npz", Labels(tinted, None, tinted.repeat(4, axis=1).repeat(4, axis=2)))
    crops = PhotoCrops(tmp_path, drawn(), 4, truth_share=1.0, seed=0, permuted_share=1.0)

    given, target = next(crops.batches(8, labelled=16, others=0))

    assert np.array_equal(given.repeat(4, axis=1).repeat(4, axis=2), target)
    orders = {tuple(np.argsort(image[0, 0])) for image in given}
    assert len(orders) > 2


def test_others_come_last_with_their_true_image(tmp_path: Path) -> None:
    write_labels(tmp_path / "0000.npz", make_labels(4, 0))
    red = [np.full((96, 96, 3), (255, 0, 0), np.uint8)]
    crops = PhotoCrops(tmp_path, Crops(red, RECIPE, 0), 4, truth_share=0.0, seed=0)

    _, target = next(crops.batches(8, labelled=2, others=1))

    assert target.shape == (3, 32, 32, 3)
    assert len(np.unique(target[-1].reshape(-1, 3), axis=0)) == 1
    assert all(len(np.unique(image.reshape(-1, 3), axis=0)) > 1 for image in target[:2])


def test_new_files_are_found_while_training(tmp_path: Path) -> None:
    write_labels(tmp_path / "0000.npz", make_labels(1, 0))
    crops = PhotoCrops(tmp_path, drawn(), 4, truth_share=0.0, seed=0)
    write_labels(tmp_path / "0001.npz", make_labels(2, 1))

    batches = crops.batches(8, labelled=1, others=0)
    for _ in range(LOOK_EVERY + 1):
        next(batches)

    assert crops.count == 3


def test_a_folder_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No labels under .* Make them with"):
        PhotoCrops(tmp_path, drawn(), 4, truth_share=0.0, seed=0)


class Doubling:
    """In place of the teacher: repeats pixels."""

    def upscale(self, pixels: Pixels) -> Pixels:
        return pixels.repeat(4, axis=1).repeat(4, axis=2)


def test_labelling_continues_with_the_files_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.label.load_teacher", lambda **_: Doubling())
    for name in TRAINING_SETS:
        (tmp_path / "train" / name).mkdir(parents=True)
        for index in range(3):
            Image.fromarray(textured(128, index)).save(tmp_path / "train" / name / f"{index}.png")
    folder = tmp_path / "labels"
    arguments = ["--data", str(tmp_path), "--labels", str(folder)]
    arguments += ["--files", "2", "--per-file", "3", "--patch", "16"]

    assert CliRunner().invoke(label, arguments).exit_code == 0
    first, second = ((folder / name).read_bytes() for name in ("0000.npz", "0001.npz"))
    (folder / "0001.npz").unlink()
    result = CliRunner().invoke(label, arguments)

    assert "0001.npz: 3 crops" in result.output
    assert "0000.npz" not in result.output
    assert (folder / "0001.npz").read_bytes() == second != first
    for _, labels in read_labels(folder):
        assert len(labels) == 3
        assert labels.truth is not None
        assert labels.truth.shape == labels.taught.shape == (3, 64, 64, 3)
        assert all(disagreement(a, b) <= 0.25 for a, b in zip(labels.taught, labels.truth, strict=True))
