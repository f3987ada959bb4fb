"""Large results leave past the caches, small ones do not: both are the same, bit for bit."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import wan_kernels as wk
from wan_kernels import dispatch

# In bf16 and fp32 4 MiB or more in all, but not in a quarter of the tokens. The wider rows begin at odd places.
NUM_TOKENS = 2048
WIDTHS = [1280, 1286]
NUM_QUARTERS = 4


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def outputs(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else result


def check(run: Callable[..., Tensor | tuple[Tensor, ...]], *inputs: Tensor, dim: int = 1, out_dim: int = 1) -> None:
    """run(*inputs) against the same of each quarter of their tokens."""
    whole = outputs(run(*inputs))
    quarters = [outputs(run(*parts)) for parts in zip(*(x.chunk(NUM_QUARTERS, dim) for x in inputs), strict=True)]
    for i, part in enumerate(whole):
        expected = torch.cat([quarter[i] for quarter in quarters], out_dim)
        assert torch.equal(part, expected)


@pytest.fixture(autouse=True)
def only_cpu() -> Iterator[None]:
    with dispatch.use_backend("cpu"):
        yield


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", WIDTHS)
def test_rows(width: int, dtype: torch.dtype) -> None:
    x, y, weight = normal(1, NUM_TOKENS, width, dtype=dtype), normal(1, NUM_TOKENS, width, dtype=dtype), normal(width)
    table = normal(1, 1, width)
    assert x.numel() * x.element_size() >= 4 << 20 > x.numel() * x.element_size() // NUM_QUARTERS
    check(lambda x: wk.rms_norm(x, weight), x)
    check(lambda x: wk.layer_norm_modulate(x, table, table), x)
    check(lambda x, y: wk.gate_residual(x, y, table), x, y)
    check(lambda x, y: wk.gate_residual_layer_norm_modulate(x, y, table, table, table), x, y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
def test_channels(memory_format: torch.memory_format, dtype: torch.dtype) -> None:
    x = normal(1, 96, 4, 60, 100, dtype=dtype).contiguous(memory_format=memory_format)
    assert x.numel() * x.element_size() >= 4 << 20 > x.numel() * x.element_size() // NUM_QUARTERS
    check(lambda x: wk.channel_rms_norm_silu(x, torch.ones(96)), x, dim=2, out_dim=2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("head_width", [128, 64, 44])
def test_heads(head_width: int, dtype: torch.dtype) -> None:
    """Codes have their heads outside their tokens; quarters are alike in rows and columns of the grid, and in time."""
    num_heads = 1280 // head_width
    x, weight = normal(1, 2 * NUM_TOKENS, num_heads * head_width, dtype=dtype), normal(num_heads * head_width)
    grid = (1, 16, 2 * NUM_TOKENS // 16 // NUM_QUARTERS)
    pairs = (head_width // 2 - 2 * (head_width // 6), head_width // 6, head_width // 6)
    angles = [normal(rows, n) for rows, n in zip((NUM_QUARTERS, *grid[1:]), pairs, strict=True)]
    angles[0] = angles[0][:1].expand(NUM_QUARTERS, -1)
    tables = [torch.stack([angle.cos(), angle.sin()], -1) for angle in angles]

    def roped(x: Tensor, op: Callable[..., Tensor | tuple[Tensor, ...]]) -> Tensor | tuple[Tensor, ...]:
        frames = x.shape[1] // (grid[1] * grid[2])
        return op(x, weight, *tables, num_heads=num_heads, grid=(frames, *grid[1:]))

    assert x.numel() >= 4 << 20 > x.numel() // NUM_QUARTERS
    check(lambda x: roped(x, wk.rms_norm_rope), x)
    check(lambda x: roped(x, wk.rms_norm_rope_8bit)[:2], x, out_dim=2)
    check(lambda x: wk.quantize_heads(x.unflatten(-1, (num_heads, -1)))[:2], x, out_dim=2)
