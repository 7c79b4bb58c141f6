"""Augmentation: the same pictures for the same seed, within range, and each kind does what its name says."""

import dataclasses

import numpy as np
from training_made import pattern

from training import augment
from training.config import TrainConfig

STILL = dataclasses.replace(
    TrainConfig(),
    **dict.fromkeys(("flip", "shift", "rotation", "zoom", "shear", "jitter"), 0.0),
    **dict.fromkeys(("contrast", "brightness", "damage", "erasing"), 0.0),
)
FACES = np.stack([pattern(index % 7, index) for index in range(64)])


def _augmented(seed: int = 0, **changes: float) -> np.ndarray:
    return augment.augment(FACES, dataclasses.replace(STILL, **changes), np.random.default_rng(seed))


def test_without_augmentation_the_pixels_stay() -> None:
    plain = _augmented()
    assert plain.dtype == np.float32
    np.testing.assert_allclose(plain, FACES[..., None], atol=1e-3)


def test_a_flip_mirrors_left_and_right() -> None:
    np.testing.assert_allclose(_augmented(flip=1.0)[..., 0], FACES[:, :, ::-1], atol=1e-3)


def test_a_flip_share_flips_that_share() -> None:
    changed = np.abs(_augmented(flip=0.5)[..., 0] - FACES).max(axis=(1, 2)) > 1
    assert 0.25 < changed.mean() < 0.75


def test_rotation_and_zoom_turn_about_the_centre() -> None:
    config = dataclasses.replace(STILL, rotation=30.0, zoom=0.2, shear=0.2)
    centre = np.array([23.5, 23.5, 1])
    for matrix in augment.warps(50, config, np.random.default_rng(1)):
        np.testing.assert_allclose(matrix @ centre, centre[:2], atol=1e-9)
        turn = np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
        assert abs(turn) <= 30
    scales = [np.hypot(*m[:, 0]) for m in augment.warps(50, config, np.random.default_rng(1))]
    assert np.exp(-0.2) <= min(scales) < 0.95
    assert 1.05 < max(scales) <= np.exp(0.2)


def test_shift_and_jitter_move_the_centre() -> None:
    def offsets(**changes: float) -> np.ndarray:
        matrices = augment.warps(400, dataclasses.replace(STILL, **changes), np.random.default_rng(2))
        return matrices @ np.array([23.5, 23.5, 1]) - 23.5

    assert np.abs(offsets(shift=0.1)).max() <= 4.8
    assert 1.7 < offsets(jitter=0.04).std() < 2.2  # 0.04 of 48 pixels


def test_light_stays_a_picture() -> None:
    lit = _augmented(contrast=0.5, brightness=60.0)
    assert lit.min() >= 0
    assert lit.max() <= 255
    assert lit.mean(axis=(1, 2, 3)).std() > FACES.mean(axis=(1, 2)).std() + 10


def test_erasing_replaces_one_rectangle() -> None:
    changed = np.abs(_augmented(erasing=1.0)[..., 0] - FACES) > 1e-3
    area = changed.mean(axis=(1, 2))
    assert area.min() > 0.005
    assert area.max() < 0.25
    rows, columns = np.where(changed[0])
    box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    assert changed[0].sum() > 0.9 * box


def test_a_poor_camera_spoils_its_share_and_leaves_a_picture() -> None:
    spoilt = _augmented(damage=0.5)
    changed = np.abs(spoilt[..., 0] - FACES).max(axis=(1, 2)) > 0.5
    assert 0.25 < changed.mean() < 0.75
    assert spoilt.min() >= 0
    assert spoilt.max() <= 255
    everyone = _augmented(damage=1.0)[..., 0]
    # Still the same face, if darker and coarser.
    alike = [np.corrcoef(face.ravel(), poor.ravel())[0, 1] for face, poor in zip(FACES, everyone, strict=True)]
    assert min(alike) > 0.3
    assert np.median(alike) > 0.8


def test_the_seed_decides_the_pictures() -> None:
    config = TrainConfig()
    first, again, other = (augment.augment(FACES, config, np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 1


def test_mixup_blends_images_and_targets_alike() -> None:
    # Images that hold their own label in every pixel make the blend readable.
    targets = np.eye(7, dtype=np.float32)[np.arange(14) % 7]
    images = np.ones((14, 48, 48, 1), np.float32) * (np.arange(14) % 7)[:, None, None, None]
    mixed, blended = augment.mixup(images, targets, 0.8, np.random.default_rng(3))
    np.testing.assert_allclose(blended.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(mixed[:, 0, 0, 0], blended @ np.arange(7), atol=1e-5)
    assert np.abs(mixed - images).max() > 0.05
