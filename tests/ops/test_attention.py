"""What is special to attention: log-sum-exps merge, hidden keys are never seen, lengths, gradients through both."""

import re

import pytest
import torch
from torch import Tensor

import wan_kernels as wk
from wan_kernels import dispatch, native
from wan_kernels.ops.attention import backend_sdpa

BACKENDS = dispatch.names("attention")
# The triton backend multiplies 16-bit floats only, and rounds the weights to them.
DTYPES = {"triton": torch.float16}
TOLERANCES = {"triton": {"rtol": 2e-3, "atol": 2e-3}}


@pytest.fixture(params=BACKENDS, autouse=True)
def backend(request: pytest.FixtureRequest):
    if (reason := dispatch.get("attention", request.param).unavailable) is not None:
        pytest.skip(reason)
    with dispatch.use_backend(attention=request.param):
        yield request.param


def forced_dtype() -> torch.dtype:
    return DTYPES.get(dispatch.forced("attention"), torch.float32)


def heads(*lengths: int, num_samples: int = 2, width: int = 16, dtype: torch.dtype | None = None) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(num_samples, length, 3, width) for length in lengths]
    return [torch.randn(shape, generator=generator).to(dtype or forced_dtype()) for shape in shapes]


def assert_close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, **TOLERANCES.get(dispatch.forced("attention"), {}))


def test_partial_outputs_merge_by_their_log_sum_exps() -> None:
    """What ring attention does: softmax over all keys from two halves."""
    q, k, v = heads(7, 20, 20)
    whole, whole_lse = wk.attention(q, k, v, return_lse=True)
    parts = [wk.attention(q, k[:, part], v[:, part], return_lse=True) for part in (slice(0, 13), slice(13, 20))]
    lse = torch.logaddexp(parts[0][1], parts[1][1])
    merged = sum(out * (part - lse).exp().transpose(1, 2).unsqueeze(-1) for out, part in parts)
    assert_close(merged.to(whole.dtype), whole)
    torch.testing.assert_close(lse, whole_lse)


def test_lengths_equal_cut_keys_and_hide_the_rest() -> None:
    q, k, v = heads(7, 20, 20)
    wanted = wk.attention(q[1:], k[1:, :5], v[1:, :5])
    k[1, 5:], v[1, 5:] = float("nan"), float("inf")
    q, k, v = (each.requires_grad_() for each in (q, k, v))
    out = wk.attention(q, k, v, k_lengths=torch.tensor([20, 5], dtype=torch.int32))
    assert_close(out[1:], wanted)
    grads = torch.autograd.grad(out.sum(), (q, k, v))
    assert all(grad.isfinite().all() for grad in grads)
    assert (grads[1][1, 5:] == 0).all()
    assert (grads[2][1, 5:] == 0).all()


def test_gradient_through_the_log_sum_exp_alone() -> None:
    """d lse / d q = scale * the mean of k under the softmax, whatever the values are."""
    q, k, _ = heads(7, 20, 20)
    q.requires_grad_()
    _, lse = wk.attention(q, k, torch.full_like(k, float("nan")), return_lse=True)
    (grad,) = torch.autograd.grad(lse.sum(), q)
    assert_close(grad, wk.attention(q.detach(), k, k) * 16**-0.5)


def test_long_gradients_through_the_log_sum_exp_come_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_sdpa, "MAX_LOGITS", 2 * 3 * 20 * 2)
    q, k, v = (each.requires_grad_() for each in heads(7, 20, 20))
    out, lse = wk.attention(q, k, v, return_lse=True)
    found = torch.autograd.grad(out.sum() + lse.sin().sum(), (q, k, v))
    with dispatch.use_backend(attention="reference"):
        out, lse = wk.attention(q, k, v, return_lse=True)
        wanted = torch.autograd.grad(out.sum() + lse.sin().sum(), (q, k, v))
    tolerance = TOLERANCES.get(dispatch.forced("attention"), {"rtol": 1e-4, "atol": 1e-5})
    torch.testing.assert_close(found, wanted, **tolerance)


def test_log_sum_exp_of_equal_keys_counts_them() -> None:
    q, k, v = (
        make(1, n, 1, 16, dtype=forced_dtype()) for make, n in ((torch.zeros, 4), (torch.ones, 9), (torch.ones, 9))
    )
    out, lse = wk.attention(q, k, v, return_lse=True)
    torch.testing.assert_close(lse, torch.full((1, 1, 4), 9.0).log())
    torch.testing.assert_close(out, torch.ones_like(out))


def test_one_huge_key_takes_all() -> None:
    q, k, v = heads(7, 300, 300)
    q, huge = q.abs(), 1000.0
    k[:, 290] = huge
    out, lse = wk.attention(q, k, v, return_lse=True)
    torch.testing.assert_close(out, v[:, 290:291].expand_as(out))
    torch.testing.assert_close(lse, (q.float().sum(-1) * huge * 16**-0.5).transpose(1, 2))


def test_logits_far_below_zero_weigh_as_those_at_zero() -> None:
    """exp(-lse) overflows here, so that whatever lies beyond the last key must not be weighed at all."""
    q, k, v = heads(7, 20, 20)
    q[...] = 8.0
    q, k, v = (each.requires_grad_() for each in (q, k - 30.0, v))
    out = wk.attention(q, k, v)
    found = torch.autograd.grad(out.sum(), (q, k, v))
    near = (k.detach() + 30.0).requires_grad_()
    wanted = torch.autograd.grad(wk.attention(q, near, v).sum(), (q, near, v))
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=3e-2)


def test_values_of_zero_give_zero_and_leave_no_gradient_but_their_own() -> None:
    q, k, v = (each.requires_grad_() for each in heads(7, 20, 20))
    with torch.no_grad():
        v.zero_()
    out = wk.attention(q, k, v)
    grads = torch.autograd.grad(out.sum(), (q, k, v))
    assert not out.any() and not grads[0].any() and not grads[1].any()
    assert_close(grads[2].float().sum(1), torch.full((2, 3, 16), 7.0))


@pytest.mark.parametrize("backend", ["cpu"], indirect=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_change_nothing(dtype: torch.dtype) -> None:
    """Nor does calling again: no gradient is summed in the order in which threads come. The C library's promise."""
    q, k, v = (each.requires_grad_() for each in heads(150, 300, 300, width=32, dtype=dtype))
    found = []
    for num_threads in (1, 3, 3):
        native.library().set_num_threads(num_threads)
        out, lse = wk.attention(q, k, v, k_lengths=torch.tensor([300, 141]), return_lse=True)
        found.append((out, lse, *torch.autograd.grad(out.float().square().sum() + lse.sum(), (q, k, v))))
    native.library().set_num_threads(0)
    for others in zip(*found, strict=True):
        assert all(torch.equal(others[0], other) for other in others[1:])


@pytest.mark.parametrize("name", ["k", "v"])
def test_a_nan_in_a_valid_key_or_value_is_its_heads(name: str) -> None:
    q, k, v = heads(70, 300, 300)
    {"k": k, "v": v}[name][1, 280, 2, 5] = float("nan")
    found = wk.attention(q, k, v).isnan()
    hidden = wk.attention(q, k, v, k_lengths=torch.tensor([300, 280]))
    assert found[1, :, 2, 5].all()
    assert found.any(-1).sum() == 70
    assert hidden.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_types_and_layout(dtype: torch.dtype, backend: str) -> None:
    if dtype is torch.float32 and backend in DTYPES:
        pytest.skip(f"{backend} takes 16-bit floats only")
    out, lse = wk.attention(*heads(7, 20, 20, dtype=dtype), return_lse=True)
    assert (out.dtype, lse.dtype) == (dtype, torch.float32)
    assert out.is_contiguous()
    assert lse.is_contiguous()
    assert lse.shape == (2, 3, 7)


def test_a_nan_query_stays_in_its_row() -> None:
    q, k, v = heads(7, 20, 20)
    q[0, 3, 1, 5] = float("nan")
    found = wk.attention(q, k, v).isnan().any(-1).nonzero().tolist()
    assert found == [[0, 3, 1]]


@pytest.mark.parametrize(
    ("dtype", "width", "has_lengths"),
    [
        (torch.bfloat16, 128, False),
        (torch.bfloat16, 128, True),
        (torch.bfloat16, 384, False),
        (torch.float32, 128, False),
    ],
)
def test_cuda_calls_are_well_formed(dtype: torch.dtype, width: int, has_lengths: bool) -> None:
    """Without a GPU the calls can still be held to the schemas and shapes of the aten ops."""
    q, k = (torch.empty(2, 4, length, width, dtype=dtype, device="meta") for length in (70, 33))
    k_lengths = torch.empty(2, dtype=torch.int32, device="meta") if has_lengths else None
    out, lse = backend_sdpa._forward_cuda(q, k, k, k_lengths, None)
    assert (out.shape, lse.shape) == ((2, 70, 4, width), (2, 4, 70))
    grads = backend_sdpa._backward_cuda(q, q, k, k, out.transpose(1, 2), lse, k_lengths, None)
    assert [grad.shape for grad in grads] == [q.shape, k.shape, k.shape]


Q, K = torch.ones(2, 3, 1, 8), torch.ones(2, 5, 1, 8)


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        ((Q[0], K, K), {}, ValueError, "q must be [B, L, N, H], got shape (3, 1, 8)"),
        ((Q, K[:1], K), {}, ValueError, "k must have shape (2, *, 1, 8), got (1, 5, 1, 8)"),
        ((Q, K, K[:, :4]), {}, ValueError, "v must have shape (2, 5, 1, 8), got (2, 4, 1, 8)"),
        ((Q, K.double(), K), {}, TypeError, "k must be float32 as q is, got float64"),
        ((Q, K[:, :0], K[:, :0]), {}, ValueError, "k must have at least one key, got shape (2, 0, 1, 8)"),
        ((Q, K, K), {"k_lengths": torch.tensor([1, 2, 3])}, ValueError, "k_lengths must have shape (2), got (3,)"),
        ((Q, K, K), {"k_lengths": torch.ones(2)}, TypeError, "k_lengths must be one of int32, int64, got float32"),
        ((Q, K, K.to("meta")), {}, ValueError, "v must be on q's device cpu, got meta"),
    ],
)
def test_refuses(args, options, error, message) -> None:
    with pytest.raises(error, match=re.escape(f"[attention] {message}")):
        wk.attention(*args, **options)
