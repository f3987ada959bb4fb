"""Names and configs of the published layouts: our mapping against the classes and files that others publish."""

from dataclasses import replace

import pytest
import torch

from wan_model import config
from wan_model.config import DIT_1_3B, DIT_5B, DIT_14B, PRESETS, UMT5_XXL, WAN21_VAE, WAN22_VAE, DiTConfig
from wan_model.conversion import (
    diffusers_dit_name,
    read_diffusers_dit,
    read_diffusers_text,
    read_diffusers_vae,
    read_official_dit,
    read_official_expert,
    write_diffusers_dit,
    write_diffusers_text,
    write_diffusers_vae,
    write_official_dit,
)
from wan_model.vae import WanVAE

# Released config.json files.
OFFICIAL_1_3B = {
    "_class_name": "WanModel", "_diffusers_version": "0.30.0", "dim": 1536, "eps": 1e-06, "ffn_dim": 8960,
    "freq_dim": 256, "in_dim": 16, "model_type": "t2v", "num_heads": 12, "num_layers": 30, "out_dim": 16,
    "text_len": 512,
}  # fmt: skip
OFFICIAL_14B = OFFICIAL_1_3B | {"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40}
OFFICIAL_5B = OFFICIAL_1_3B | {
    "dim": 3072, "ffn_dim": 14336, "num_heads": 24, "in_dim": 48, "out_dim": 48, "model_type": "ti2v",
}  # fmt: skip
DIFFUSERS_1_3B = {
    "_class_name": "WanTransformer3DModel", "added_kv_proj_dim": None, "attention_head_dim": 128,
    "cross_attn_norm": True, "eps": 1e-06, "ffn_dim": 8960, "freq_dim": 256, "image_dim": None, "in_channels": 16,
    "num_attention_heads": 12, "num_layers": 30, "out_channels": 16, "patch_size": [1, 2, 2],
    "pos_embed_seq_len": None, "qk_norm": "rms_norm_across_heads", "rope_max_seq_len": 1024, "text_dim": 4096,
}  # fmt: skip

DIFFUSERS_VAE_2_1 = {
    "_class_name": "AutoencoderKLWan", "attn_scales": [], "base_dim": 96, "dim_mult": [1, 2, 4, 4], "dropout": 0.0,
    "num_res_blocks": 2, "temperal_downsample": [False, True, True], "z_dim": 16,
}  # fmt: skip
DIFFUSERS_VAE_2_2 = DIFFUSERS_VAE_2_1 | {
    "base_dim": 160, "clip_output": False, "decoder_base_dim": 256, "in_channels": 12, "is_residual": True,
    "out_channels": 12, "patch_size": 2, "scale_factor_spatial": 16, "scale_factor_temporal": 4, "z_dim": 48,
}  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "expected"), [(OFFICIAL_1_3B, DIT_1_3B), (OFFICIAL_14B, DIT_14B), (OFFICIAL_5B, DIT_5B)]
)
def test_released_official_configs_are_read(fields, expected):
    assert read_official_dit(fields) == expected


def test_released_diffusers_config_is_read():
    assert read_diffusers_dit(DIFFUSERS_1_3B) == DIT_1_3B


def test_image_models_are_told_apart():
    fields = OFFICIAL_14B | {"in_dim": 36, "model_type": "i2v"}
    image = replace(DIT_14B, in_dim=36)
    assert read_official_dit(fields) == replace(image, has_image_cross_attention=True)
    assert read_official_expert(fields) == image
    last = read_official_dit(fields | {"model_type": "flf2v"})
    assert last == replace(image, has_image_cross_attention=True, num_image_positions=514)


def test_vace_layers_are_read():
    fields = OFFICIAL_1_3B | {"model_type": "vace", "vace_layers": [0, 2, 4], "vace_in_dim": 96}
    assert read_official_dit(fields) == replace(DIT_1_3B, vace_layers=(0, 2, 4), vace_in_dim=96)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_its_diffusers_configs(name):
    model = config.get_preset(name)
    assert read_diffusers_dit(write_diffusers_dit(model.dit)) == model.dit
    assert read_diffusers_text(write_diffusers_text(model.text)) == model.text
    assert read_diffusers_vae(write_diffusers_vae(model.vae)) == model.vae


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_its_official_config(name):
    model = config.get_preset(name)
    read = read_official_expert if model.num_experts > 1 else read_official_dit
    assert read(write_official_dit(model.dit)) == model.dit


def test_published_text_encoder_survives():
    assert read_diffusers_text(write_diffusers_text(UMT5_XXL)) == UMT5_XXL


@pytest.mark.parametrize(("fields", "expected"), [(DIFFUSERS_VAE_2_1, WAN21_VAE), (DIFFUSERS_VAE_2_2, WAN22_VAE)])
def test_released_vae_configs_are_read(fields, expected):
    statistics = {"latents_mean": list(expected.latents_mean), "latents_std": list(expected.latents_std)}
    assert read_diffusers_vae(fields | statistics) == expected
    assert read_diffusers_vae(fields | statistics | {"decoder_base_dim": fields["base_dim"]}).decoder_dim is None


ATTENTION = [f"{part}.{kind}" for part in "qkvo" for kind in ("weight", "bias")] + ["norm_q.weight", "norm_k.weight"]
LINEAR = ["weight", "bias"]


def block_names(prefix: str, *, has_image: bool) -> list[str]:
    names = [f"{attention}.{part}" for attention in ("self_attn", "cross_attn") for part in ATTENTION]
    names += [f"{part}.{kind}" for part in ("norm3", "ffn.0", "ffn.2") for kind in LINEAR] + ["modulation"]
    if has_image:
        names += [f"cross_attn.{part}.{kind}" for part in ("k_img", "v_img") for kind in LINEAR]
        names += ["cross_attn.norm_k_img.weight"]
    return [f"{prefix}.{name}" for name in names]


def official_names(dit: DiTConfig) -> list[str]:
    """The published list of tensors, written out by hand: not read from our own class."""
    linears = ["patch_embedding", "text_embedding.0", "text_embedding.2", "time_embedding.0", "time_embedding.2"]
    linears += ["time_projection.1", "head.head"]
    if dit.has_image_cross_attention:
        linears += [f"img_emb.proj.{i}" for i in (0, 1, 3, 4)]
    if dit.vace_layers:
        linears += ["vace_patch_embedding", "vace_blocks.0.before_proj"]
        linears += [f"vace_blocks.{i}.after_proj" for i in range(len(dit.vace_layers))]
    names = [f"{linear}.{kind}" for linear in linears for kind in LINEAR] + ["head.modulation"]
    names += ["img_emb.emb_pos"] if dit.num_image_positions else []
    for i in range(dit.num_layers):
        names += block_names(f"blocks.{i}", has_image=dit.has_image_cross_attention)
    for i in range(len(dit.vace_layers)):
        names += block_names(f"vace_blocks.{i}", has_image=False)
    return names


def vae_names(blocks: list[str], widening: list[str], resamplers: list[str], temporal: list[str]) -> list[str]:
    """The published list of a VAE's tensors. blocks, widening: residual ones, and those of them that add channels."""
    blocks = blocks + [f"{side}.middle.{i}" for side in ("encoder", "decoder") for i in (0, 2)]
    names = [f"{block}.residual.{i}.gamma" for block in blocks for i in (0, 3)]
    names += [f"{side}.{part}.gamma" for side in ("encoder", "decoder") for part in ("middle.1.norm", "head.0")]
    convolutions = [f"{block}.residual.{i}" for block in blocks for i in (2, 6)]
    convolutions += [f"{block}.shortcut" for block in widening]
    convolutions += [f"{place}.resample.1" for place in resamplers] + [f"{place}.time_conv" for place in temporal]
    parts = ("conv1", "middle.1.to_qkv", "middle.1.proj", "head.2")
    convolutions += ["conv1", "conv2", *(f"{side}.{part}" for side in ("encoder", "decoder") for part in parts)]
    return names + [f"{convolution}.{kind}" for convolution in convolutions for kind in LINEAR]


def down(*places: int) -> list[str]:
    return [f"encoder.downsamples.{i}" for i in places]


def up(*places: int) -> list[str]:
    return [f"decoder.upsamples.{i}" for i in places]


def down_in(*levels: int, places: tuple[int, ...]) -> list[str]:
    return [f"encoder.downsamples.{level}.downsamples.{i}" for level in levels for i in places]


def up_in(*levels: int, places: tuple[int, ...]) -> list[str]:
    return [f"decoder.upsamples.{level}.upsamples.{i}" for level in levels for i in places]


VAE_NAMES = {
    "2.1": vae_names(
        blocks=down(0, 1, 3, 4, 6, 7, 9, 10) + up(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14),
        widening=down(3, 6) + up(4),
        resamplers=down(2, 5, 8) + up(3, 7, 11),
        temporal=down(5, 8) + up(3, 7),
    ),
    "2.2": vae_names(
        blocks=down_in(0, 1, 2, 3, places=(0, 1)) + up_in(0, 1, 2, 3, places=(0, 1, 2)),
        widening=down_in(1, 2, places=(0,)) + up_in(2, 3, places=(0,)),
        resamplers=down_in(0, 1, 2, places=(2,)) + up_in(0, 1, 2, places=(3,)),
        temporal=down_in(1, 2, places=(2,)) + up_in(0, 1, places=(3,)),
    ),
}


@pytest.mark.parametrize(("release", "vae"), [("2.1", WAN21_VAE), ("2.2", WAN22_VAE)])
def test_names_of_both_vaes_are_the_official_ones(release, vae):
    with torch.device("meta"):
        found = list(WanVAE(vae).state_dict())
    assert len(VAE_NAMES[release]) == len(found)
    assert set(VAE_NAMES[release]) == set(found)


SMALL = DiTConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=3, text_dim=20, freq_dim=16)
VARIANTS = {
    "t2v": SMALL,
    "i2v": replace(SMALL, in_dim=36, has_image_cross_attention=True),
    "flf2v": replace(SMALL, in_dim=36, has_image_cross_attention=True, num_image_positions=514),
    "vace": replace(SMALL, vace_layers=(0, 2), vace_in_dim=96),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_names_of_every_variant_equal_those_of_diffusers(variant):
    diffusers = pytest.importorskip("diffusers", reason="diffusers names the tensors that we map to")
    dit = VARIANTS[variant]
    fields = write_diffusers_dit(dit)
    kind = getattr(diffusers, fields.pop("_class_name"))
    expected = kind.from_config({**fields, "image_dim": 24 if dit.has_image_cross_attention else None})
    mapped = [diffusers_dit_name(name) for name in official_names(dit)]
    assert len(mapped) == len(set(mapped))
    assert set(mapped) == set(expected.state_dict())
