"""The ways to compute attention that are compared: our ops on each of their backends, torch's own, SageAttention.

Letters: B batch, L queries, S keys, N heads, H head width.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import wan_kernels as wk
from wan_kernels import dispatch
from wan_kernels.attention_bench.accuracy import Part, Read
from wan_kernels.attention_format import (
    CPU_FORMAT,
    GPU_FORMAT,
    AttentionFormat,
    attention_format,
    example,
    quantize_qkv,
)
from wan_kernels.common.triton import is_interpreting
from wan_kernels.ops.attention_8bit.reference import dequantized_heads, dequantized_values

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# The references keep all logits, several times over: 1 GiB of float32.
MAX_LOGITS = 2**28
SAGE = "sageattention"

Result = tuple[Tensor, Tensor | None]
Codes = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Plain:
    """Attention to q, k and v as they are, in one dtype.

    format: what it multiplies. refusal: why it takes no part. has_preparation: whether preparing is work that a model
    would have to do, not a change of type for the comparison. spans_tokens: whether a block of tokens of k shares a
    scale.
    """

    name: str
    format: str
    call: Callable[[Tensor, Tensor, Tensor], Result]
    refusal: str | None = None
    has_preparation: bool = False
    spans_tokens: bool = False

    @property
    def is_ours(self) -> bool:
        """Whether that it raises is a failure of ours."""
        return self.name.startswith("attention.")

    def prepare(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dtype = DTYPES[self.format]
        return q.to(dtype), k.to(dtype), v.to(dtype)

    def run(self, prepared: tuple[Tensor, Tensor, Tensor]) -> Result:
        """out [B, L, N, H] and, where it has one, the log-sum-exp [B, N, L]."""
        return self.call(*prepared)

    def read(self, prepared: tuple[Tensor, Tensor, Tensor], part: Part) -> Read | None:
        """What it reads, of the rows and heads that are judged; None for what quantises within the call."""
        q, k, v = prepared
        return None if self.name == SAGE else (part.queries(q), part.keys(k), part.keys(v))


@dataclass(frozen=True)
class EightBit:
    """`attention_8bit` on one backend, in the format that it reads."""

    backend: str
    form: AttentionFormat
    refusal: str | None
    is_ours: bool = True
    has_preparation: bool = True

    @property
    def name(self) -> str:
        return f"attention_8bit.{self.backend}"

    @property
    def format(self) -> str:
        return "int8" if self.form.v_dtype is torch.int8 else "int8_fp8"

    @property
    def spans_tokens(self) -> bool:
        return self.form.k_tokens_per_scale > 1

    def prepare(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Codes, Codes, Codes]:
        return quantize_qkv(q, k, v, self.form)

    def run(self, prepared: tuple[Codes, Codes, Codes]) -> Result:
        with dispatch.use_backend(attention_8bit=self.backend):
            return wk.attention_8bit(*prepared, **self.form.options, return_lse=True)

    def read(self, prepared: tuple[Codes, Codes, Codes], part: Part) -> Read:
        """The codes of the rows and heads that are judged, dequantised."""
        (q, q_scale, _), (k, k_scale, k_mean), (v, v_scale, v_mean) = (
            [each[:, part.heads] for each in codes] for codes in prepared
        )
        form = self.form
        q_BNLH = dequantized_heads(q, q_scale, form.q_tokens_per_scale, torch.float32)
        k_BNSH = dequantized_heads(k, k_scale, form.k_tokens_per_scale, torch.float64) + k_mean.unsqueeze(2)
        v_BNPH = dequantized_values(v, v_scale, form.v_tokens_per_scale or 0, form.is_permuted, torch.float64)
        v_BNSH = v_BNPH[:, :, : k.shape[2]] + v_mean.unsqueeze(2)
        return q_BNLH[:, :, part.rows].transpose(1, 2), k_BNSH.transpose(1, 2), v_BNSH.transpose(1, 2)


Contender = Plain | EightBit


def contenders(wanted: Sequence[str] | None, device: str, num_logits: int, head_width: int) -> Iterator[Contender]:
    """Those chosen, or all, for a call with so many logits. A name counts whole, or its part before the dot."""
    for each in _all(device, num_logits, head_width):
        if wanted is None or _is_wanted(wanted, each.name):
            yield each


def check_names(wanted: Sequence[str]) -> None:
    """Raises ValueError for a name of none of them."""
    known = list(dict.fromkeys(each.name for each in _all("cpu", 1, 128)))
    for name in wanted:
        if not any(_is_wanted([name], each) for each in known):
            raise ValueError(f"[bench] backend must be one of {', '.join(known)}, got {name!r}")


def _is_wanted(wanted: Sequence[str], name: str) -> bool:
    return name in wanted or name.partition(".")[0] in wanted


def _all(device: str, num_logits: int, head_width: int) -> Iterator[Contender]:
    place = torch.device(device)
    for backend in dispatch.names("attention_8bit"):
        yield _eight_bit(backend, place, num_logits, head_width)
    for backend in dispatch.names("attention"):
        candidate = dispatch.get("attention", backend)
        for format, dtype in DTYPES.items():
            one = torch.empty(1, 1, 1, head_width, dtype=dtype, device=place)
            reason = candidate.unavailable or candidate.reject(one, one, one, None, None)
            reason = reason or _too_large(backend, num_logits) or _interpreted(backend)
            yield Plain(f"attention.{backend}", format, partial(_ours, backend), reason)
    for format in DTYPES:
        yield Plain("torch.sdpa", format, partial(_torch, None))
    needs_gpu = None if place.type == "cuda" else "needs a CUDA device"
    yield Plain("torch.flash", "bf16", partial(_torch, SDPBackend.FLASH_ATTENTION), needs_gpu)
    yield Plain("torch.cudnn", "bf16", partial(_torch, SDPBackend.CUDNN_ATTENTION), needs_gpu)
    # It quantises within the call.
    yield Plain(SAGE, "bf16", _sage, _sage_missing() or needs_gpu, spans_tokens=True)


def _eight_bit(backend: str, place: torch.device, num_logits: int, head_width: int) -> EightBit:
    """In the first format that the backend takes, the device's own before others."""
    candidate = dispatch.get("attention_8bit", backend)
    forms = list(dict.fromkeys((attention_format(place), CPU_FORMAT, GPU_FORMAT)))
    reasons = [candidate.reject(*example(place, head_width, form)) for form in forms]
    form = forms[reasons.index(None) if None in reasons else 0]
    refusal = candidate.unavailable or _too_large(backend, num_logits) or reasons[forms.index(form)]
    return EightBit(backend, form, refusal or _interpreted(backend))


def _interpreted(backend: str) -> str | None:
    if backend != "triton" or not is_interpreting():
        return None
    return "would run in Triton's interpreter, which has neither the speed nor the rounding of a GPU"


def _too_large(backend: str, num_logits: int) -> str | None:
    if backend != dispatch.REFERENCE or num_logits <= MAX_LOGITS:
        return None
    return f"keeps all logits, {4 * num_logits / 1e9:.0f} GB of them"


def _ours(backend: str, q: Tensor, k: Tensor, v: Tensor) -> Result:
    with dispatch.use_backend(attention=backend):
        return wk.attention(q, k, v, return_lse=True)


def _torch(kernel: SDPBackend | None, q: Tensor, k: Tensor, v: Tensor) -> Result:
    chosen: AbstractContextManager[Any] = nullcontext() if kernel is None else sdpa_kernel(kernel)
    with chosen:
        out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2), None


def _sage_missing() -> str | None:
    try:
        importlib.import_module(SAGE)
    except ImportError as error:
        return f"absent: {error}"
    return None


def _sage(q: Tensor, k: Tensor, v: Tensor) -> Result:
    return importlib.import_module(SAGE).sageattn(q, k, v, tensor_layout="NHD", is_causal=False), None
