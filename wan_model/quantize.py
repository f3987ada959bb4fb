"""A DiT in 8 bits, made from outside: its blocks are replaced by blocks that run on codes, nothing else changes.

In 8 bits run the matrix products that cost: q, k and v of self-attention as one product fed by one quantisation, its
output with gate and residual, q and the output of cross-attention, both of the feed-forward, the first of which writes
codes for the second; and, where there is a kernel for it, attention, on codes that the norms of q and k write. All else
stays as it is: the embeddings and the head, which see pixels and time, the norms and the modulation, which run in
float32, and the products that make keys and values of the text, which a run computes once.

The residual stream is written by the epilogue of `linear_8bit`. gate_residual_layer_norm_modulate_8bit after a plain
product would save nothing: 13 bytes an element either way (the product written and read in bfloat16 instead of the
stream read again in float32), and the product rounded once more.

Letters as in dit.py. Source: what to fuse, from the seams that engines leave open (sglang, LightX2V, TensorRT-LLM);
scales per token and per channel, arXiv 2211.10438.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

import wan_kernels as wk
from wan_kernels.attention_format import attention_format, has_attention_8bit
from wan_model.dit import Block, CrossAttention, DiT, TextStates, modulation_rows, rope_tables

Precision = Literal["fp32", "bf16", "int8", "fp8"]
PRECISIONS = get_args(Precision)
CODES: dict[str, torch.dtype] = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}

# The linear layers of a block that run in 8 bits, by their official names; a comma joins those that run as one.
EIGHT_BIT_LAYERS = ("self_attn.q,k,v", "self_attn.o", "cross_attn.q", "cross_attn.o", "ffn.0", "ffn.2")

Codes = tuple[Tensor, Tensor]
HeadCodes = tuple[Tensor, Tensor, Tensor]
NOWHERE = (0, 0, 0)  # the grid of tokens that have no place: nothing is rotated


@dataclass(frozen=True)
class LayerPlan:
    """What a group of layers runs, and why."""

    layers: str
    runs: str
    why: str


@dataclass(frozen=True)
class LayerError:
    """How far one linear layer in 8 bits is from itself at full precision, on the inputs it really gets."""

    layer: str
    sqnr_db: float


def dtype_of(precision: Precision) -> torch.dtype:
    """What weights are loaded in, and what is not in 8 bits computes in."""
    if precision not in PRECISIONS:
        raise ValueError(f"[precision] must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    return DTYPES.get(precision, torch.bfloat16)


class Linear8bit(nn.Module):
    """Linear layers of one input as one product of codes; their outputs lie side by side."""

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor

    def __init__(self, *layers: nn.Linear, dtype: torch.dtype):
        super().__init__()
        weight, scale = wk.quantize_rows(torch.cat([layer.weight for layer in layers]).detach(), dtype)
        # Only CPU kernels want another layout.
        self.register_buffer("weight", wk.pack_linear_8bit(weight) if weight.is_cpu and dtype is torch.int8 else weight)
        self.register_buffer("weight_scale", scale)
        self.register_buffer("bias", torch.cat([layer.bias for layer in layers]).detach())

    def forward(self, codes: Codes, **epilogue: Any) -> Any:
        return wk.linear_8bit(*codes, self.weight, self.weight_scale, self.bias, **epilogue)


class Heads8bit:
    """q, k and v as `attention_8bit` reads them, from projections [B, L, N*H]."""

    def __init__(self, num_heads: int, head_width: int, eps: float):
        self.num_heads, self.head_width, self.eps = num_heads, head_width, eps

    def q(self, x_BLD: Tensor, weight: Tensor, grid: tuple[int, int, int]) -> HeadCodes:
        return self._normed(x_BLD, weight, grid, attention_format(x_BLD.device).q_tokens_per_scale, is_smooth=False)

    def k(self, x_BLD: Tensor, weight: Tensor, grid: tuple[int, int, int]) -> HeadCodes:
        return self._normed(x_BLD, weight, grid, attention_format(x_BLD.device).k_tokens_per_scale, is_smooth=True)

    def v(self, x_BLD: Tensor, *, is_smooth: bool = False) -> HeadCodes:
        form = attention_format(x_BLD.device)
        v_BLNH = x_BLD.unflatten(-1, (self.num_heads, -1))
        return wk.quantize_values(
            v_BLNH,
            dtype=form.v_dtype,
            tokens_per_scale=form.v_tokens_per_scale,
            is_smooth=is_smooth,
            is_permuted=form.is_permuted,
        )

    def attend(self, q: HeadCodes, k: HeadCodes, v: HeadCodes, out_dtype: torch.dtype) -> Tensor:
        """[B, L, N*H]."""
        return wk.attention_8bit(q, k, v, **attention_format(v[0].device).options, out_dtype=out_dtype).flatten(2)

    def _normed(
        self, x_BLD: Tensor, weight: Tensor, grid: tuple[int, int, int], tokens_per_scale: int, is_smooth: bool
    ) -> HeadCodes:
        return wk.rms_norm_rope_8bit(
            x_BLD,
            weight,
            *rope_tables(self.head_width, x_BLD.device),
            num_heads=self.num_heads,
            grid=grid,
            eps=self.eps,
            tokens_per_scale=tokens_per_scale,
            is_smooth=is_smooth,
        )


class CrossAttention8bit(nn.Module):
    """Cross-attention with its residual, on codes; keys and values come from the layers that were there."""

    def __init__(self, attention: CrossAttention, dtype: torch.dtype, heads: Heads8bit | None):
        super().__init__()
        self.attention, self.dtype, self.heads = attention, dtype, heads
        self.q, self.o = Linear8bit(attention.q, dtype=dtype), Linear8bit(attention.o, dtype=dtype)
        self.compute_dtype = attention.q.weight.dtype
        del attention.q, attention.o

    def read_text(self, context_BSD: Tensor) -> tuple[Tensor, ...]:
        if self.heads is None:
            return self.attention.read_text(context_BSD)
        k_BSD, v_BSD = self.attention.k(context_BSD), self.attention.v(context_BSD)
        # Once per prompt, so the mean of v is free; rows of padding are all alike and make it large.
        return *self.heads.k(k_BSD, self.attention.norm_k.weight, NOWHERE), *self.heads.v(v_BSD, is_smooth=True)

    def forward(self, codes: Codes, text: tuple[Tensor, ...], residual_BLD: Tensor) -> Tensor:
        q_BLD, weight = self.q(codes, out_dtype=self.compute_dtype), self.attention.norm_q.weight
        if self.heads is None:
            q_BLNH = self.attention.split_heads(wk.rms_norm(q_BLD, weight, eps=self.attention.eps))
            attended_BLD = wk.attention(q_BLNH, *text).flatten(2)
        else:
            k, v = cast(tuple[HeadCodes, HeadCodes], (text[:3], text[3:]))
            attended_BLD = self.heads.attend(self.heads.q(q_BLD, weight, NOWHERE), k, v, self.compute_dtype)
        return self.o(wk.quantize_rows(attended_BLD, self.dtype), residual=residual_BLD)


class Block8bit(nn.Module):
    """A block of the DiT on codes. It takes the block's layers over, so that no layer is held twice."""

    def __init__(self, block: Block, dtype: torch.dtype, *, has_8bit_attention: bool):
        super().__init__()
        attention, self.dtype, self.eps = block.self_attn, dtype, block.eps
        head_width = attention.q.out_features // attention.num_heads
        self.heads = Heads8bit(attention.num_heads, head_width, attention.eps) if has_8bit_attention else None
        self.compute_dtype = attention.q.weight.dtype
        self.qkv = Linear8bit(attention.q, attention.k, attention.v, dtype=dtype)
        self.o = Linear8bit(attention.o, dtype=dtype)
        self.norm_q, self.norm_k, self.num_heads = attention.norm_q, attention.norm_k, attention.num_heads
        self.cross_attn = CrossAttention8bit(block.cross_attn, dtype, self.heads)
        self.ffn_up = Linear8bit(cast(nn.Linear, block.ffn[0]), dtype=dtype)
        self.ffn_down = Linear8bit(cast(nn.Linear, block.ffn[2]), dtype=dtype)
        self.norm3, self.modulation = block.norm3, block.modulation
        del block.self_attn, block.ffn

    def forward(
        self,
        x_BLD: Tensor,
        e_BR6D: Tensor,
        index_BL: Tensor | None,
        text: tuple[Tensor, ...],
        grid: tuple[int, int, int],
    ) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation_rows(self.modulation, e_BR6D)
        norm = partial(wk.layer_norm_modulate_8bit, eps=self.eps, dtype=self.dtype)

        codes = norm(x_BLD, scale1, shift1, index=index_BL)
        attended = wk.quantize_rows(self.attend(codes, grid), self.dtype)
        x_BLD = self.o(attended, residual=x_BLD, gate=gate1, index=index_BL)

        codes = norm(x_BLD, weight=self.norm3.weight, bias=self.norm3.bias)
        x_BLD = self.cross_attn(codes, text, x_BLD)

        codes = norm(x_BLD, scale2, shift2, index=index_BL)
        hidden = self.ffn_up(codes, gelu=True, out_dtype=self.dtype)
        return self.ffn_down(hidden, residual=x_BLD, gate=gate2, index=index_BL)

    def attend(self, codes: Codes, grid: tuple[int, int, int]) -> Tensor:
        """Self-attention up to its output layer, [B, L, D]."""
        q_BLD, k_BLD, v_BLD = self.qkv(codes, out_dtype=self.compute_dtype).chunk(3, dim=-1)
        if self.heads is not None:
            q, k = self.heads.q(q_BLD, self.norm_q.weight, grid), self.heads.k(k_BLD, self.norm_k.weight, grid)
            return self.heads.attend(q, k, self.heads.v(v_BLD), self.compute_dtype)
        tables = rope_tables(q_BLD.shape[-1] // self.num_heads, q_BLD.device)
        rotate = partial(wk.rms_norm_rope, num_heads=self.num_heads, grid=grid, eps=self.eps)
        q_BLNH = rotate(q_BLD, self.norm_q.weight, *tables)
        k_BLNH = rotate(k_BLD, self.norm_k.weight, *tables)
        return wk.attention(q_BLNH, k_BLNH, v_BLD.unflatten(-1, (self.num_heads, -1))).flatten(2)


def quantize(
    dit: DiT, precision: Precision, *, keep: Sequence[int] = (), has_8bit_attention: bool | None = None
) -> list[LayerPlan]:
    """Turns the blocks of a DiT into their 8-bit form, in place, and says what each layer now runs.

    keep: blocks that stay as they are. has_8bit_attention: None for wherever there is a kernel for it; its codes are
    int8 for q and k and, for v, what the device's kernel wants, whatever `precision`. The blocks go one at a time: what
    is held beside the model is one block's weights. Raises ValueError where `precision` is not int8 or fp8, or `keep`
    names no block.
    """
    if precision not in CODES:
        raise ValueError(f"[precision] must be {' or '.join(CODES)} to quantise, got {precision!r}")
    num_blocks = len(dit.blocks)
    if strays := [index for index in keep if not 0 <= index < num_blocks]:
        raise ValueError(f"[precision] blocks to keep must lie in [0, {num_blocks}), got {strays[0]}")
    high = name_of(dit.patch_embedding.weight.dtype)
    if has_8bit_attention is None:
        has_8bit_attention = has_attention_8bit(dit.patch_embedding.weight.device, dit.config.head_dim)
    for index in range(num_blocks):
        if index not in keep:
            block = cast(Block, dit.blocks[index])
            dit.blocks[index] = Block8bit(block, CODES[precision], has_8bit_attention=has_8bit_attention).eval()
    form = attention_format(dit.patch_embedding.weight.device)
    attention = f"int8 q and k, {name_of(form.v_dtype)} v" if has_8bit_attention else high
    return make_plan(precision, high, attention, num_blocks, sorted(set(keep)))


def make_plan(precision: str, high: str, attention: str, num_blocks: int, keep: Sequence[int]) -> list[LayerPlan]:
    count = num_blocks - len(keep)
    plan = [LayerPlan(f"{layers} x {count}", precision, WHY[layers]) for layers in EIGHT_BIT_LAYERS]
    plan += [LayerPlan(f"blocks {', '.join(map(str, keep))}", high, "kept by request")] if keep else []
    return [
        *plan,
        LayerPlan("cross_attn.k,v", high, "once per prompt"),
        LayerPlan("patch_embedding, text_embedding", high, "what they lose, every block loses"),
        LayerPlan("time_embedding, time_projection, modulation, head", "float32", "as the authors run them"),
        LayerPlan("norms, rope, residual stream", "float32", "inside the kernels"),
        LayerPlan("attention", attention, ATTENTION_WHY[attention != high]),
    ]


WHY = {
    "self_attn.q,k,v": "one product; the norm before it writes the codes",
    "self_attn.o": "gate and residual in the same pass",
    "cross_attn.q": "the norm before it writes the codes",
    "cross_attn.o": "residual in the same pass",
    "ffn.0": "GELU and the codes for the next in the same pass",
    "ffn.2": "gate and residual in the same pass",
}


ATTENTION_WHY = ("no proven 8-bit kernel here, or not asked for", "codes come from the norms of q and k")


@torch.no_grad()
def layer_errors(
    dit: DiT, precision: Precision, latents_BCTYX: Tensor, timestep_B: Tensor, context: Tensor | TextStates
) -> list[LayerError]:
    """Signal to noise, in decibels, of each layer that `quantize` would replace, on what it gets in one forward.

    `dit` is at full precision and stays so: each layer is quantised when it runs, compared, and let go.
    """
    errors: list[LayerError] = []

    def compare(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            codes = wk.quantize_rows(args[0], CODES[precision])
            got = Linear8bit(cast(nn.Linear, layer), dtype=CODES[precision])(codes, out_dtype=torch.float32)
            errors.append(LayerError(name, sqnr_db(got, output)))

        return hook

    layers = {name: module for name, module in dit.blocks.named_modules() if is_eight_bit(name)}
    hooks = [layer.register_forward_hook(compare(f"blocks.{name}")) for name, layer in layers.items()]
    try:
        dit(latents_BCTYX, timestep_B, context)
    finally:
        for each in hooks:
            each.remove()
    return errors


def is_eight_bit(name: str) -> bool:
    """Whether `quantize` replaces the layer `<block>.<name>`: 3.self_attn.q."""
    _, _, layer = name.partition(".")
    group, _, member = layer.rpartition(".")
    return any(
        group == each.rpartition(".")[0] and member in each.rpartition(".")[2].split(",") for each in EIGHT_BIT_LAYERS
    )


def sqnr_db(got: Tensor, wanted: Tensor) -> float:
    """10 log10 of the energy of `wanted` over that of the difference."""
    noise = (got.double() - wanted.double()).square().sum()
    return (10 * torch.log10(wanted.double().square().sum() / noise)).item()


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
