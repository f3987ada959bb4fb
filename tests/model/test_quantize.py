"""The DiT in 8 bits: near itself at full precision, in place, honest about what it runs."""

import copy
import dataclasses

import pytest
import torch
from small_model import SMALL, small_pipeline

from wan_kernels import dispatch
from wan_model.dit import DiT
from wan_model.pipeline import check_layers, generate, load_pipeline, to_8bit
from wan_model.quantize import Block8bit, layer_errors, quantize, sqnr_db
from wan_model.settings import make_settings


def random_dit(dim: int = SMALL.dit.dim) -> DiT:
    """Weights in which every path matters: gates of about 1, a head that is not zero."""
    torch.manual_seed(0)
    return DiT(dataclasses.replace(SMALL.dit, dim=dim)).eval()


def inputs(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(batch, SMALL.dit.in_dim, 2, 4, 6, generator=generator)
    return latents, torch.full((batch,), 500.0), torch.randn(batch, 5, SMALL.dit.text_dim, generator=generator)


@pytest.mark.parametrize(("precision", "least_db"), [("int8", 32.0), ("fp8", 22.0)])
@torch.no_grad()
def test_velocity_stays_near(precision: str, least_db: float) -> None:
    dit = random_dit()
    wanted = dit(*inputs())
    quantize(dit, precision)
    assert all(isinstance(block, Block8bit) for block in dit.blocks)
    assert sqnr_db(dit(*inputs()), wanted) > least_db


@torch.no_grad()
def test_per_token_timesteps_go_through() -> None:
    dit = random_dit()
    latents, _, context = inputs()
    timesteps, index = torch.tensor([[100.0, 900.0]]).expand(2, -1), torch.arange(12).remainder(2).expand(2, -1)
    wanted = dit(latents, timesteps, context, timestep_index=index)
    quantize(dit, "int8")
    assert sqnr_db(dit(latents, timesteps, context, timestep_index=index), wanted) > 32


@torch.no_grad()
def test_text_read_once_gives_the_same() -> None:
    for dit in (random_dit(), quantised(random_dit())):
        latents, timestep, context = inputs()
        assert torch.equal(dit(latents, timestep, dit.read_text(context)), dit(latents, timestep, context))


def quantised(dit: DiT) -> DiT:
    quantize(dit, "int8")
    return dit


@torch.no_grad()
def test_every_backend_agrees() -> None:
    """The reference's blocks and the fastest ones': sums of integers are exact, so what differs is rounding."""
    dit = quantised(random_dit())
    fast = dit(*inputs())
    with dispatch.use_backend("reference"):
        assert sqnr_db(dit(*inputs()), fast) > 60


@torch.no_grad()
def test_attention_runs_on_codes_where_there_is_a_kernel() -> None:
    """Heads of 24 have none, heads of 32 have. The plan says so, and it costs little beside the products in 8 bits."""
    assert attention_plan(random_dit(), None) == "float32"
    wanted = random_dit(64)(*inputs())
    forwards = []
    for has_8bit_attention, runs in ((None, "int8 q and k, int8 v"), (False, "float32")):
        dit = random_dit(64)
        assert attention_plan(dit, has_8bit_attention) == runs
        forwards.append(dit(*inputs()))
    on_codes, in_float = forwards
    assert not torch.equal(on_codes, in_float)
    assert sqnr_db(on_codes, wanted) > sqnr_db(in_float, wanted) - 3


def attention_plan(dit: DiT, has_8bit_attention: bool | None) -> str:
    plan = quantize(dit, "int8", has_8bit_attention=has_8bit_attention)
    return next(row.runs for row in plan if row.layers == "attention")


def test_kept_blocks_stay() -> None:
    dit = random_dit()
    first = dit.blocks[0]
    plan = quantize(dit, "int8", keep=[0])
    assert dit.blocks[0] is first and isinstance(dit.blocks[1], Block8bit)
    assert any(row.layers == "blocks 0" and row.why == "kept by request" for row in plan)


def test_weights_are_held_once() -> None:
    """8 bits for what runs in 8 bits: no layer keeps its full-precision weight beside the codes."""
    dit = random_dit().bfloat16()
    width, hidden, depth = SMALL.dit.dim, SMALL.dit.ffn_dim, SMALL.dit.num_layers
    before = sum(weight.numel() for weight in dit.parameters())
    quantize(dit, "fp8")
    gone = depth * (6 * width * width + 2 * width * hidden + 6 * width + hidden + width)
    assert sum(weight.numel() for weight in dit.parameters()) == before - gone
    codes = [each for name, each in dit.named_buffers() if name.endswith("weight")]
    assert sum(each.numel() for each in codes) == depth * (6 * width * width + 2 * width * hidden)
    assert all(each.element_size() == 1 for each in codes)


def test_layer_errors_name_every_layer_and_leave_the_model_alone() -> None:
    dit = random_dit()
    before = copy.deepcopy(dit.state_dict())
    errors = layer_errors(dit, "int8", *inputs())
    assert len(errors) == 8 * SMALL.dit.num_layers
    assert {each.layer for each in errors} >= {"blocks.0.self_attn.q", "blocks.1.ffn.2", "blocks.1.cross_attn.o"}
    assert not any(each.layer.endswith(("cross_attn.k", "cross_attn.v")) for each in errors)
    assert all(30 < each.sqnr_db < 70 for each in errors)
    assert all(torch.equal(value, before[name]) for name, value in dit.state_dict().items())


def test_a_spoilt_layer_shows() -> None:
    """An input far larger than its neighbours leaves them few codes; the check says in which layer."""
    dit = random_dit()
    with torch.no_grad():
        dit.blocks[1].ffn[0].bias[0] = 1e3  # the hidden row of ffn.2 has one huge value,
        dit.blocks[1].ffn[2].weight[:, 0] = 0  # which it then ignores
    errors = {each.layer: each.sqnr_db for each in layer_errors(dit, "int8", *inputs())}
    assert min(errors, key=lambda name: errors[name]) == "blocks.1.ffn.2"
    assert errors["blocks.1.ffn.2"] < 10


def test_refuses() -> None:
    with pytest.raises(ValueError, match=r"\[precision\] must be int8 or fp8 to quantise, got 'bf16'"):
        quantize(random_dit(), "bf16")
    with pytest.raises(ValueError, match=r"\[precision\] blocks to keep must lie in \[0, 2\), got 7"):
        quantize(random_dit(), "int8", keep=[7])
    with pytest.raises(ValueError, match=r"\[precision\] must be one of fp32, bf16, int8, fp8, got 'int4'"):
        load_pipeline("tiny", precision="int4")


def test_pipeline_records_its_precision(tmp_path) -> None:
    pipeline = small_pipeline(tmp_path)
    settings = make_settings(pipeline.config, ["a red circle"])
    assert len(check_layers(pipeline, settings, "int8")) == 8 * SMALL.dit.num_layers
    pipeline, plan = to_8bit(pipeline, "int8")
    result = generate(pipeline, ["a red circle"])
    assert result.precision == "int8" and result.record(0)["precision"] == "int8"
    assert result.videos_BCFYX.isfinite().all()
    assert {row.runs for row in plan} == {"int8", "float32"}


def test_the_tiny_model_draws_the_same_video_in_8_bits() -> None:
    """Whole runs drift apart, but not far: the first frames' latents decide the picture."""
    prompt = ["a red circle moves right over a blue background"]
    full = generate(load_pipeline("tiny"), prompt, num_frames=1, num_steps=8).videos_BCFYX
    codes = generate(load_pipeline("tiny", precision="int8"), prompt, num_frames=1, num_steps=8).videos_BCFYX
    assert sqnr_db(codes, full) > 15
