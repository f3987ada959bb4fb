"""PSNR and SSIM against their formulas, written out."""

import math

import cv2
import numpy as np
import pytest
import torch

from wan_model.metrics import gaussian, psnr, ssim


def pair(size=(13, 16)):
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(2, 3, 4, *size, generator=generator) * 2 - 1
    return a, (a + 0.2 * torch.randn(a.shape, generator=generator)).clamp(-1, 1)


def test_psnr_is_that_of_pixels_in_0_to_255():
    a, b = pair()
    found = psnr(a, b)
    levels_a, levels_b = ((x + 1).numpy() * 127.5 for x in (a, b))
    for i in range(2):
        for t in range(4):
            assert found[i, t].item() == pytest.approx(cv2.PSNR(levels_a[i, :, t], levels_b[i, :, t]), abs=1e-3)
    assert math.isinf(psnr(a, a)[0, 0])


def test_ssim_is_the_formula_pixel_by_pixel():
    a, b = pair()
    window = np.outer(gaussian(), gaussian()).astype(np.float64)
    assert window.sum() == pytest.approx(1) and window[5, 5] / window[5, 6] == pytest.approx(math.exp(1 / 4.5))

    def at(x, y, top, left):
        """The similarity of one window, in float64."""
        x, y = (z[top : top + 11, left : left + 11] for z in (x, y))
        mean_x, mean_y = (window * x).sum(), (window * y).sum()
        variance_x, variance_y = (window * (x - mean_x) ** 2).sum(), (window * (y - mean_y) ** 2).sum()
        covariance = (window * (x - mean_x) * (y - mean_y)).sum()
        c1, c2 = 0.02**2, 0.06**2
        numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
        return numerator / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))

    found = ssim(a, b)
    assert found.shape == (2, 4)
    frame_a, frame_b = a[1, :, 2].double().numpy(), b[1, :, 2].double().numpy()
    expected = [at(frame_a[c], frame_b[c], top, left) for c in range(3) for top in range(3) for left in range(6)]
    assert found[1, 2].item() == pytest.approx(np.mean(expected), abs=1e-5)
    assert torch.allclose(ssim(a, a), torch.ones(2, 4))


def test_ssim_needs_room_for_its_window():
    a, b = pair((10, 16))
    with pytest.raises(ValueError, match=r"\[ssim\] frames must be at least 11x11 pixels, got 16x10"):
        ssim(a, b)
