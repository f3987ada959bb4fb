"""What is special to causal_conv3d_ring: streams equal one pass whatever the ring, and older slots are left alone."""

import re

import pytest
import torch
from torch import Tensor

import wan_kernels as wk
from wan_kernels import dispatch, testing
from wan_kernels.define_op import OPS

AROUND = (1, 1, 1, 1)
OP = "causal_conv3d_ring"
BACKENDS = [name for name in dispatch.names(OP) if dispatch.get(OP, name).unavailable is None]


def video(*shape: int, seed: int = 0) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last_3d)


def new_ring(x: Tensor, num_slots: int) -> Tensor:
    return video(*x.shape[:2], num_slots, *x.shape[3:]).fill_(float("nan"))


def forget(ring: Tensor, position: int, num_history: int) -> None:
    """NaN to every slot but those of the last `num_history` frames."""
    known = {f % ring.shape[2] for f in range(max(0, position - num_history), position)}
    for slot in set(range(ring.shape[2])) - known:
        ring[:, :, slot] = float("nan")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("num_slots", [2, 3, 5])
@pytest.mark.parametrize("lengths", [[1] * 19, [1, 2, 3, 4, 1, 1, 7], [5, 1, 13], [19]])
def test_stream_equals_one_pass(lengths: list[int], num_slots: int, backend: str) -> None:
    x, residual = video(2, 4, 19, 5, 6), video(2, 3, 19, 5, 6, seed=1)
    # Triton's interpreter takes its time for each tap.
    side, padding = (1, (0, 0, 0, 0)) if backend == "triton" else (3, AROUND)
    weight, bias, gamma = video(3, 4, 3, side, side, seed=2), torch.randn(3), torch.randn(4)
    wanted = residual + wk.causal_conv3d(wk.channel_rms_norm_silu(x, gamma), weight, bias, padding=padding)
    ring, position, parts = new_ring(x, num_slots), 0, []
    with dispatch.use_backend(causal_conv3d_ring=backend):
        for chunk, rest in zip(x.split(lengths, dim=2), residual.split(lengths, dim=2), strict=True):
            chunk, rest = (each.contiguous(memory_format=torch.channels_last_3d) for each in (chunk, rest))
            forget(ring, position, 2)
            y = wk.causal_conv3d_ring(
                chunk, weight, bias, ring, position, norm_weight=gamma, residual=rest, padding=padding
            )
            parts.append(y)
            position += chunk.shape[2]
    torch.testing.assert_close(torch.cat(parts, dim=2), wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kernel_t", [2, 3, 4])
def test_stream_with_stride_2_equals_one_pass(kernel_t: int, backend: str) -> None:
    x, weight = video(1, 4, 16, 5, 6), video(3, 4, kernel_t, 1, 1, seed=1)
    wanted = wk.causal_conv3d(x, weight, stride=(2, 1, 1))
    ring, position, parts = new_ring(x, 3), 0, []
    with dispatch.use_backend(causal_conv3d_ring=backend):
        for chunk in x.split([2, 6, 4, 2, 2], dim=2):
            chunk = chunk.contiguous(memory_format=torch.channels_last_3d)
            forget(ring, position, kernel_t - 2)
            parts.append(wk.causal_conv3d_ring(chunk, weight, None, ring, position, stride=(2, 1, 1)))
            position += chunk.shape[2]
    torch.testing.assert_close(torch.cat(parts, dim=2), wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_other_slots_stay(backend: str) -> None:
    x, weight, ring = video(1, 4, 1, 3, 4), video(2, 4, 3, 1, 1), video(1, 4, 5, 3, 4, seed=1)
    before = ring.clone()
    with dispatch.use_backend(causal_conv3d_ring=backend):
        wk.causal_conv3d_ring(x, weight, None, ring, 8)
    assert torch.equal(ring[:, :, 3], x[:, :, 0])  # frame 8 of 5 slots
    others = [0, 1, 2, 4]
    assert torch.equal(ring[:, :, others], before[:, :, others])


def test_a_slice_of_a_longer_ring_can_be_the_ring() -> None:
    x, weight, whole = video(1, 4, 3, 3, 4), video(2, 4, 3, 3, 3), video(1, 4, 6, 3, 4, seed=1)
    part, alone = whole[:, :, 2:4], video(1, 4, 6, 3, 4, seed=1)[:, :, 2:4].clone()
    before = whole.clone()
    y = wk.causal_conv3d_ring(x, weight, None, part, 4, padding=AROUND)
    torch.testing.assert_close(y, wk.causal_conv3d_ring(x, weight, None, alone, 4, padding=AROUND))
    assert torch.equal(part, alone)
    assert torch.equal(whole[:, :, [0, 1, 4, 5]], before[:, :, [0, 1, 4, 5]])


def test_compiled_writes_the_ring() -> None:
    case = next(case for case in testing.cases_of(OP) if case.name == "wrapped_one_frame")
    eager, traced = (list(case.args(torch.float32)) for _ in range(2))
    compiled = torch.compile(lambda *args: OPS[OP](*args), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*traced), OPS[OP](*eager))
    assert torch.equal(traced[3], eager[3])


def test_gradients_are_refused_before_anything_is_written() -> None:
    x, weight = video(1, 4, 2, 3, 4), video(2, 4, 3, 1, 1)
    ring = new_ring(x, 2)
    with pytest.raises(RuntimeError, match=re.escape(f"[{OP}] must run without gradients")):
        wk.causal_conv3d_ring(x.requires_grad_(), weight, None, ring, 0)
    assert ring.isnan().all()
    with torch.no_grad():
        wk.causal_conv3d_ring(x, weight, None, ring, 0)
    assert not ring.isnan().any()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"position": -1}, ValueError, "position must be the number of frames before x, got -1"),
        ({"ring": video(1, 4, 1, 3, 4)}, ValueError, "ring must have at least 2 frames, got 1"),
        ({"ring": video(1, 4, 2, 4, 4)}, ValueError, "ring must have shape (1, 4, *, 3, 4), got (1, 4, 2, 4, 4)"),
        ({"ring": video(1, 4, 2, 3, 4).half()}, TypeError, "ring must be float32 as x is, got float16"),
        ({"norm_weight": torch.ones(3)}, ValueError, "norm_weight must have shape (4), got (3,)"),
        ({"residual": video(1, 4, 2, 3, 4)}, ValueError, "residual must have shape (1, 2, 2, 3, 4)"),
        ({"stride": (2, 1, 1), "x": video(1, 4, 3, 3, 4)}, ValueError, "x must have a multiple of 2 frames, got 3"),
        ({"weight": video(2, 5, 3, 1, 1)}, ValueError, "weight must have shape (*, 4, *, *, *)"),
    ],
)
def test_refuses(change: dict, error: type[Exception], message: str) -> None:
    x = video(1, 4, 2, 3, 4)
    arguments = {"x": x, "weight": video(2, 4, 3, 1, 1), "bias": None, "ring": new_ring(x, 2), "position": 0} | change
    with pytest.raises(error, match=re.escape(f"[{OP}] {message}")):
        wk.causal_conv3d_ring(**arguments)
