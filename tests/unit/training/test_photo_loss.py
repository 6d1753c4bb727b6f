"""The discriminator, and the parts of the loss of compact_photo_x4."""

from __future__ import annotations

import torch
from torch import Tensor

from training.adversarial import PatchDiscriminator, adversarial_loss, discriminator_loss
from training.losses import grid_loss, l1_fft
from training.photo_loss import PhotoLoss, PhotoWeights, mean_absolute
from training.vgg import VGGFeatures, feature_distance


def images(seed: int, count: int = 2, side: int = 32) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def make_loss(*, drawings: int = 0, **weights: float) -> PhotoLoss:
    torch.manual_seed(0)
    parts = {"pixel": 0.0, "grid": 0.0, "feature": 0.0, "adversarial": 0.0, "adversarial_after": 0, **weights}
    return PhotoLoss(PhotoWeights(**parts), VGGFeatures(), drawings=drawings, half=False)  # type: ignore[arg-type]


def test_the_discriminator_has_the_size_that_is_documented() -> None:
    count = sum(parameter.numel() for parameter in PatchDiscriminator().parameters())
    assert round(count / 1e6, 2) == 0.17
    assert PatchDiscriminator()(images(0)).shape == (2, 1, 6, 6)


def test_the_discriminator_ignores_colours_of_equal_luminance() -> None:
    grey = torch.full((1, 3, 16, 16), 0.5)
    tinted = grey + torch.tensor([0.587, -0.299, 0.0]).view(1, 3, 1, 1) * 0.2
    discriminator = PatchDiscriminator().eval()

    torch.testing.assert_close(discriminator(tinted), discriminator(grey))
    assert not torch.allclose(discriminator(grey + 0.1), discriminator(grey))


def test_hinge_losses_reward_what_they_should() -> None:
    good, bad = torch.full((2, 1, 3, 3), 1.5), torch.full((2, 1, 3, 3), -1.5)

    assert discriminator_loss(good, bad) == 0
    assert discriminator_loss(bad, good) == 2.5
    assert adversarial_loss(good) < adversarial_loss(bad)


def test_the_discriminator_learns_to_tell_results_from_targets() -> None:
    torch.manual_seed(0)
    loss = make_loss(adversarial=1.0)
    sharp = (images(0) > 0.5).float()
    soft = torch.full_like(sharp, 0.5)

    values = []
    for _ in range(12):
        loss(soft, sharp)
        values.append(loss.means()["discriminator_loss"])

    assert values[-1] < 0.8 * values[0]


def test_the_adversarial_part_leaves_drawings_alone() -> None:
    restored = images(0, count=3).requires_grad_()
    loss = make_loss(drawings=1, adversarial=1.0)

    torch.autograd.backward(loss(restored, images(1, count=3)))

    assert restored.grad is not None
    assert restored.grad[:2].abs().max() > 0
    assert restored.grad[2].abs().max() == 0


def test_the_adversarial_part_starts_after_its_steps() -> None:
    loss = make_loss(pixel=1.0, adversarial=1.0, adversarial_after=1)
    loss(images(0), images(1))
    assert set(loss.means()) == {"pixel_loss"}

    loss(images(0), images(1))
    assert set(loss.means()) == {"pixel_loss", "adversarial_loss", "discriminator_loss"}


def test_the_parts_add_up_with_their_weights() -> None:
    loss = make_loss(pixel=2.0, feature=3.0)
    restored, target = images(0), images(1)

    total = loss(restored, target)

    features = VGGFeatures()
    features.load_state_dict(loss._features.state_dict())
    expected = 2 * l1_fft(restored, target) + 3 * feature_distance(features(restored), features(target))
    torch.testing.assert_close(total, expected)


def test_the_loss_of_grids_sees_a_grid_and_neither_texture_nor_brightness() -> None:
    target = images(0, side=64)
    grid = torch.tensor([0.1, 0.0, 0.0, -0.1]).repeat(16)

    assert grid_loss(target + grid, target) > 0.04
    assert grid_loss(target + 0.1, target) < 1e-6
    assert grid_loss(target + 0.1 * (images(1, side=64) - 0.5), target) < 0.005


def test_the_mean_absolute_difference_has_pytorchs_value_and_gradient() -> None:
    a, b = images(0).requires_grad_(), images(1)
    own = torch.autograd.grad(3 * mean_absolute(a, b), a)[0]
    reference = torch.autograd.grad(3 * (a - b).abs().mean(), a)[0]

    torch.testing.assert_close(mean_absolute(a, b), (a - b).abs().mean())
    torch.testing.assert_close(own, reference)
