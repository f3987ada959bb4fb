"""The extension: what it refuses, how it says so, and that it writes only what it was given."""

import pytest
import torch

from wan_kernels import native

pytestmark = pytest.mark.skipif(native.load()[0] is None, reason=f"needs the extension: {native.load()[1]}")


def test_errors_are_one_line_with_the_type_that_fits() -> None:
    library = native.library()
    x, weight = torch.randn(2, 4), torch.randn(4)
    with pytest.raises(ValueError, match=r"^\[rms_norm\] weight must have shape \(4,\), got \(3,\)$"):
        library.rms_norm(torch.empty(2, 4), x, weight[:3], 1e-6)
    with pytest.raises(ValueError, match="got float64"):
        library.rms_norm(torch.empty(2, 4).double(), x.double(), weight, 1e-6)
    with pytest.raises(TypeError, match="must be tensors, got list"):
        library.rms_norm([1.0], x, weight, 1e-6)
    with pytest.raises(ValueError, match="x must be given, got NULL"):
        library.rms_norm(torch.empty(2, 4), None, weight, 1e-6)


def test_index_out_of_range_is_refused_before_anything_is_written() -> None:
    x, gate = torch.randn(1, 2, 4), torch.randn(1, 3, 4)
    out = torch.full_like(x, float("nan"))
    with pytest.raises(ValueError, match=r"index must lie in \[0, 3\), got -1 at \(0, 1\)"):
        native.library().gate_residual(out, x, x, gate, torch.tensor([[2, -1]]))
    assert out.isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_strided_rows_are_read_and_written_in_place(dtype: torch.dtype) -> None:
    wide = torch.randn(2, 6, 30).to(dtype)
    weight = torch.randn(10).to(dtype)
    target = torch.full((2, 6, 30), float("nan"), dtype=dtype)
    native.library().rms_norm(target[:, ::2, 10:20], wide[:, ::2, 10:20], weight, 1e-6)
    x = wide[:, ::2, 10:20].double()
    wanted = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * weight.double()
    torch.testing.assert_close(target[:, ::2, 10:20].double(), wanted, rtol=2e-2, atol=2e-2)
    assert target.isnan().sum() == target.numel() - wanted.numel()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_is_to_nearest_even(dtype: torch.dtype) -> None:
    """Every 16-bit value and its neighbourhood, through a kernel whose arithmetic is exact: 0 + y * 1.

    Of bfloat16 only the subnormals may be 0: AVX512-BF16 rounds so.
    """
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    exact = bits.view(dtype).float()
    halfway = exact * (1 + 2.0 ** -(9 if dtype is torch.bfloat16 else 12))
    y = torch.cat((exact, halfway, exact * (1 + 2.0**-20))).view(1, 1, -1)
    x = torch.zeros_like(y).to(dtype)
    out = torch.empty_like(x)
    native.library().gate_residual(out, x, y, torch.ones_like(y), None)
    wanted = y.to(dtype)
    if dtype is torch.bfloat16:
        is_lost = (wanted.abs() < 2.0**-126) & (out == 0)
        wanted = wanted.masked_fill(is_lost, 0)
    torch.testing.assert_close(out, wanted, rtol=0, atol=0, equal_nan=True)


def test_sums_do_not_depend_on_the_number_of_threads() -> None:
    library = native.library()
    x, weight, grad_out = torch.randn(700, 256), torch.randn(256), torch.randn(700, 256)
    found = []
    for num_threads in (1, 2, 5):
        library.set_num_threads(num_threads)
        grad_x, grad_weight = torch.empty_like(x), torch.empty_like(weight)
        library.rms_norm_backward(grad_x, grad_weight, grad_out, x, weight, 1e-6)
        found.append((grad_x, grad_weight))
    library.set_num_threads(0)
    for grad_x, grad_weight in found[1:]:
        assert torch.equal(grad_x, found[0][0]) and torch.equal(grad_weight, found[0][1])
