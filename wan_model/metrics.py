"""How alike two videos look: PSNR and SSIM of each frame, for pixels in [-1, 1].

Letters: B batch, C channels, T frames, Y rows, X columns.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

PIXEL_RANGE = 2.0
WINDOW, SIGMA = 11, 1.5


def psnr(a_BCTYX: Tensor, b_BCTYX: Tensor) -> Tensor:
    """10 log10(range^2 / mean squared difference) of each frame, in dB; infinite for equal ones.

    Shapes: [B, C, T, Y, X] both, in [-1, 1]; result [B, T]. Numerics: float32.
    """
    mean_square_BT = (a_BCTYX.float() - b_BCTYX.float()).square().mean(dim=(1, 3, 4))
    return 10 * torch.log10(PIXEL_RANGE**2 / mean_square_BT)


def ssim(a_BCTYX: Tensor, b_BCTYX: Tensor) -> Tensor:
    """Structural similarity of each frame: 1 for equal ones, about 0 for unrelated ones.

    Means, variances and the covariance are weighted by a Gaussian of deviation 1.5 on 11x11 pixels, wherever it lies
    wholly inside; C1 = (0.01 range)^2, C2 = (0.03 range)^2. Averaged over pixels and over colour channels.
    Shapes: as `psnr`. Numerics: float32.
    Raises: ValueError for frames smaller than the window.
    Source: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural
        similarity", IEEE TIP 13 (4), 2004, equation 13; there of grey images.
    """
    B, C, T, Y, X = a_BCTYX.shape
    if min(Y, X) < WINDOW:
        raise ValueError(f"[ssim] frames must be at least {WINDOW}x{WINDOW} pixels, got {X}x{Y}")
    c1, c2 = (0.01 * PIXEL_RANGE) ** 2, (0.03 * PIXEL_RANGE) ** 2
    a, b = (x.float().transpose(1, 2).reshape(B * T * C, 1, Y, X) for x in (a_BCTYX, b_BCTYX))
    mean_a, mean_b = blurred(a), blurred(b)
    variance_a, variance_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
    covariance = blurred(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return (luminance * structure).view(B, T, -1).mean(dim=2)


def blurred(x_N1YX: Tensor) -> Tensor:
    """Weighted means over the window, rows first and then columns: [N, 1, Y - 10, X - 10]."""
    kernel = gaussian().to(x_N1YX.device)
    return F.conv2d(F.conv2d(x_N1YX, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))


@cache
def gaussian() -> Tensor:
    """The window along one axis, [11], summing to 1."""
    distance = torch.arange(WINDOW, dtype=torch.float32) - WINDOW // 2
    weights = torch.exp(-distance.square() / (2 * SIGMA**2))
    return weights / weights.sum()
