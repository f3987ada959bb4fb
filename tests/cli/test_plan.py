"""The plan against what is known about the models."""

import dataclasses
import json

import pytest
import torch

from wan_model import plan as plans
from wan_model.cli import main
from wan_model.config import PRESETS, DiTConfig, get_preset
from wan_model.dit import DiT, rope_tables
from wan_model.plan import make_plan, trace_forward
from wan_model.settings import latent_shape
from wan_model.tracing import trace
from wan_model.vae import WanVAE

# Parameters of the official DiT and VAE, counted by running them.
PUBLISHED_PARAMETERS = {
    "1.3B": (1_418_996_800, 126_892_531),
    "14B": (14_288_491_584, 126_892_531),
    "5B": (4_999_787_712, 704_688_668),
}


def formula(dim, ffn_dim, num_layers, tokens, text_tokens=512):
    """FLOPs of the blocks alone: linear layers and attention."""
    linear = 12 * tokens * dim**2 + 4 * text_tokens * dim**2 + 4 * tokens * dim * ffn_dim
    attention = 4 * tokens**2 * dim + 4 * tokens * text_tokens * dim
    return num_layers * (linear + attention)


@pytest.mark.parametrize(
    ("name", "size", "tokens", "petaflops"),
    [("14B", (1280, 720), 75_600, 6.5), ("14B", (832, 480), 32_760, 1.68), ("1.3B", (832, 480), 32_760, 0.283)],
)
def test_flops_agree_with_the_formula(name, size, tokens, petaflops):
    plan = make_plan(get_preset(name), size=size, num_frames=81, device="cuda")
    dit = get_preset(name).dit
    assert plan.num_tokens == tokens
    assert plan.forward_flops == pytest.approx(formula(dit.dim, dit.ffn_dim, dit.num_layers, tokens), rel=0.01)
    assert plan.forward_flops / 1e15 == pytest.approx(petaflops, rel=0.01)


@pytest.mark.parametrize("name", PUBLISHED_PARAMETERS)
def test_weights_are_those_of_the_release(name):
    config = get_preset(name)
    memory = plans.estimate_memory(config, (832, 448), 81, dtype=torch.bfloat16)
    dit, vae = PUBLISHED_PARAMETERS[name]
    assert memory.dit_bytes == 2 * dit
    assert memory.text_bytes == 2 * 5_680_910_336
    assert memory.vae_bytes == 4 * vae


def test_14b_at_720p_names_its_tokens_and_its_ops(capsys):
    assert main(["plan", "--model", "14B", "--size", "1280x720", "--frames", "81", "--device", "cuda"]) == 0
    out = capsys.readouterr().out
    assert "75,600 tokens, 6.52 PFLOP per forward" in out
    for op in ("attention", "rms_norm_rope", "layer_norm_modulate", "gate_residual", "linear", "causal_conv3d"):
        assert op in out


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_planned(name, capsys):
    assert main(["plan", "--model", name, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["forward_flops"] > 0 and plan["total_bytes"] > plan["weight_bytes"] > 0
    # Every op of the library that runs has a backend, and a reason.
    assert all(row["backend"] != "none" and row["why"] for row in plan["forward"] + plan["decode"])


def count(traced):
    return {key: (call.num_calls, call.flops, call.num_bytes) for key, call in traced.calls.items()}


def test_two_blocks_stand_for_all():
    config = dataclasses.replace(get_preset("tiny"), dit=dataclasses.replace(get_preset("tiny").dit, num_layers=5))
    shape = latent_shape(config, (96, 96), 17)
    dit = plans.on_meta(lambda: DiT(config.dit))
    with torch.device("meta"):
        inputs = (torch.empty(1, *shape), torch.empty(1), torch.empty(1, config.dit.text_len, config.dit.text_dim))
    rope_tables.cache_clear()
    short = trace_forward(config, shape, torch.float32)
    assert count(short) == count(trace(lambda: dit(*inputs)))
    assert min(call.num_calls for call in short.calls.values()) > 0


@pytest.mark.parametrize("vae", [get_preset("tiny").vae, get_preset("5B").vae])
def test_three_latent_frames_stand_for_all(vae):
    config = dataclasses.replace(get_preset("tiny"), vae=vae, dit=DiTConfig(48, 64, 2, 1, out_dim=vae.z_dim))
    shape = latent_shape(config, (32, 32), 29)
    network = plans.on_meta(lambda: WanVAE(vae))
    latents = torch.empty(1, *shape, device="meta")
    whole = trace(lambda: [None for _ in network.decode_stream([latents])])
    assert count(plans.trace_decode(config, shape)) == count(whole)


def test_trace_counts_a_linear_layer_and_its_peak():
    layer = torch.nn.Linear(8, 16, device="meta")
    traced = trace(lambda: layer(layer.weight.new_empty(4, 8)).relu())
    call = traced.calls["linear", "4x8 @ 8x16"]
    assert (call.num_calls, call.flops) == (1, 2 * 4 * 8 * 16)
    assert call.num_bytes == 4 * (4 * 8 + 8 * 16 + 16 + 4 * 16)
    # The input dies with the call that made it; at the worst moment two outputs are alive with it.
    assert 4 * (4 * 16 * 2) <= traced.peak_bytes <= 4 * (4 * 8 + 4 * 16 * 2)


def test_a_backend_that_refuses_is_named():
    rows = make_plan(get_preset("tiny"), device="cpu").forward
    rooms = [row for row in rows if row.backend != "torch"]
    assert rooms
    assert all(row.why in ("first choice", "the only one") or ": " in row.why for row in rooms)


def test_planning_real_work_stays_possible():
    """Tracing must not leave meta tensors in the caches of the networks."""
    make_plan(get_preset("tiny"))
    assert all(table.device.type == "cpu" for table in rope_tables(128, torch.device("cpu")))
