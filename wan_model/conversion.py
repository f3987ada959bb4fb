"""What the two published layouts call things: tensors, and the fields of their config files.

Tensor names of the Diffusers releases are functions of the official ones. One direction is enough: a loader knows the
official names it wants, so it maps those and looks each one up.
Source: the modules of diffusers 0.42 (`transformer_wan.py`, `transformer_wan_vace.py`, `autoencoder_kl_wan.py`) and
transformers' `modeling_umt5.py`.
"""

import re
from dataclasses import asdict, replace
from typing import Any

from wan_model.config import DiTConfig, TextEncoderConfig, VAEConfig
from wan_model.schedules import NUM_TRAIN_TIMESTEPS

Fields = dict[str, Any]

# Diffusers' norm2 and norm3 are exchanged: both number them in the order of their own file, not of their use.
_DIT_RULES: tuple[tuple[str, str], ...] = (
    (r"^text_embedding\.0\.", "condition_embedder.text_embedder.linear_1."),
    (r"^text_embedding\.2\.", "condition_embedder.text_embedder.linear_2."),
    (r"^time_embedding\.0\.", "condition_embedder.time_embedder.linear_1."),
    (r"^time_embedding\.2\.", "condition_embedder.time_embedder.linear_2."),
    (r"^time_projection\.1\.", "condition_embedder.time_proj."),
    (r"^img_emb\.emb_pos$", "condition_embedder.image_embedder.pos_embed"),
    (r"^img_emb\.proj\.0\.", "condition_embedder.image_embedder.norm1."),
    (r"^img_emb\.proj\.1\.", "condition_embedder.image_embedder.ff.net.0.proj."),
    (r"^img_emb\.proj\.3\.", "condition_embedder.image_embedder.ff.net.2."),
    (r"^img_emb\.proj\.4\.", "condition_embedder.image_embedder.norm2."),
    (r"^head\.modulation$", "scale_shift_table"),
    (r"^head\.head\.", "proj_out."),
    (r"\.modulation$", ".scale_shift_table"),
    (r"\.norm3\.", ".norm2."),
    (r"\.ffn\.0\.", ".ffn.net.0.proj."),
    (r"\.ffn\.2\.", ".ffn.net.2."),
    (r"\.self_attn\.", ".attn1."),
    (r"\.cross_attn\.", ".attn2."),
    (r"\.([qkv])\.", r".to_\1."),
    (r"\.o\.", ".to_out.0."),
    (r"\.([kv])_img\.", r".add_\1_proj."),
    (r"\.norm_k_img\.", ".norm_added_k."),
    (r"\.before_proj\.", ".proj_in."),
    (r"\.after_proj\.", ".proj_out."),
)

_VAE_RULES: tuple[tuple[str, str], ...] = (
    (r"^conv1\.", "quant_conv."),
    (r"^conv2\.", "post_quant_conv."),
    (r"coder\.conv1\.", "coder.conv_in."),
    (r"\.head\.0\.", ".norm_out."),
    (r"\.head\.2\.", ".conv_out."),
    (r"\.middle\.0\.", ".mid_block.resnets.0."),
    (r"\.middle\.1\.", ".mid_block.attentions.0."),
    (r"\.middle\.2\.", ".mid_block.resnets.1."),
    (r"\.downsamples\.", ".down_blocks."),
    (r"\.residual\.0\.", ".norm1."),
    (r"\.residual\.2\.", ".conv1."),
    (r"\.residual\.3\.", ".norm2."),
    (r"\.residual\.6\.", ".conv2."),
    (r"\.shortcut\.", ".conv_shortcut."),
)

_TEXT_RULES: tuple[tuple[str, str], ...] = (
    (r"^token_embedding\.", "shared."),
    (r"^norm\.", "encoder.final_layer_norm."),
    (r"^blocks\.", "encoder.block."),
    (r"\.norm1\.", ".layer.0.layer_norm."),
    (r"\.attn\.", ".layer.0.SelfAttention."),
    (r"\.pos_embedding\.embedding\.", ".layer.0.SelfAttention.relative_attention_bias."),
    (r"\.norm2\.", ".layer.1.layer_norm."),
    (r"\.ffn\.gate\.0\.", ".layer.1.DenseReluDense.wi_0."),
    (r"\.ffn\.fc1\.", ".layer.1.DenseReluDense.wi_1."),
    (r"\.ffn\.fc2\.", ".layer.1.DenseReluDense.wo."),
)


def _rewrite(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def diffusers_dit_name(name: str) -> str:
    """`blocks.0.self_attn.q.weight` -> `blocks.0.attn1.to_q.weight`."""
    return _rewrite(name, _DIT_RULES)


def diffusers_vae_name(name: str, *, num_res_blocks: int) -> str:
    """`decoder.upsamples.4.residual.2.bias` -> `decoder.up_blocks.1.resnets.0.conv1.bias`, with 2 residual blocks.

    The official decoder of 2.1 is one flat list; a Diffusers level holds `num_res_blocks + 1` blocks and one upsampler.
    In 2.2 both sides nest, encoder and decoder: `downsamples.L.downsamples.i`, `upsamples.L.upsamples.i`.
    """

    def nest(match: re.Match[str]) -> str:
        level, place = divmod(int(match[1]), num_res_blocks + 2)
        is_upsampler = place > num_res_blocks
        return f".up_blocks.{level}.upsamplers.0." if is_upsampler else f".up_blocks.{level}.resnets.{place}."

    def rename_nested(match: re.Match[str]) -> str:
        way, level, place = match[1], int(match[2]), int(match[3])
        is_resampler = place == num_res_blocks + (way == "up")
        return f".{way}_blocks.{level}.{way}sampler." if is_resampler else f".{way}_blocks.{level}.resnets.{place}."

    name = re.sub(r"\.(down|up)samples\.(\d+)\.\1samples\.(\d+)\.", rename_nested, name)
    return re.sub(r"\.upsamples\.(\d+)\.", nest, _rewrite(name, _VAE_RULES))


def diffusers_text_name(name: str) -> str:
    """`blocks.0.attn.q.weight` -> `encoder.block.0.layer.0.SelfAttention.q.weight`."""
    return _rewrite(name, _TEXT_RULES)


# Every field that shapes the network and that the official class takes; files may leave out those with a default.
_OFFICIAL_DIT_FIELDS = (
    "dim", "ffn_dim", "num_heads", "num_layers", "in_dim", "out_dim", "text_dim", "text_len", "freq_dim", "patch_size",
    "eps", "vace_layers", "vace_in_dim",
)  # fmt: skip

# Diffusers name -> ours. A field that is None or absent in a file takes our default.
_DIFFUSERS_DIT_FIELDS = {
    "num_attention_heads": "num_heads", "num_layers": "num_layers", "ffn_dim": "ffn_dim", "in_channels": "in_dim",
    "out_channels": "out_dim", "text_dim": "text_dim", "freq_dim": "freq_dim", "patch_size": "patch_size", "eps": "eps",
    "pos_embed_seq_len": "num_image_positions", "vace_layers": "vace_layers", "vace_in_channels": "vace_in_dim",
    "text_len": "text_len",
}  # fmt: skip

_DIFFUSERS_VAE_FIELDS = {
    "base_dim": "dim", "decoder_base_dim": "decoder_dim", "z_dim": "z_dim", "dim_mult": "dim_mult",
    "num_res_blocks": "num_res_blocks", "temperal_downsample": "temporal_downsample", "patch_size": "patch_size",
    "is_residual": "has_level_shortcuts", "latents_mean": "latents_mean", "latents_std": "latents_std",
}  # fmt: skip

_DIFFUSERS_TEXT_FIELDS = {
    "vocab_size": "vocab_size", "d_model": "dim", "d_ff": "ffn_dim", "num_heads": "num_heads", "d_kv": "head_dim",
    "num_layers": "num_layers", "relative_attention_num_buckets": "num_buckets",
    "relative_attention_max_distance": "max_distance", "layer_norm_epsilon": "eps",
}  # fmt: skip

# Width of the CLIP features that image models attend to.
IMAGE_DIM = 1280


def model_type(config: DiTConfig) -> str:
    """What the official config calls a network of this shape."""
    if config.vace_layers:
        return "vace"
    if config.num_image_positions:
        return "flf2v"
    if config.in_dim > config.out_dim:
        return "i2v"
    return "ti2v" if config.out_dim == 48 else "t2v"


def read_official_dit(fields: Fields) -> DiTConfig:
    """The DiT that an official `config.json` describes. Wan2.1's I2V and FLF2V attend to CLIP; 2.2's do not."""
    picked = _pick(fields, {name: name for name in _OFFICIAL_DIT_FIELDS})
    is_flf2v = fields.get("model_type") == "flf2v"
    has_image = fields.get("has_image_cross_attention", is_flf2v or fields.get("model_type") == "i2v")
    num_positions = 514 if is_flf2v else 0
    return DiTConfig(**picked, has_image_cross_attention=has_image, num_image_positions=num_positions)


def read_official_expert(fields: Fields) -> DiTConfig:
    """As `read_official_dit`, for the experts of Wan2.2: they may say i2v too, but attend to no image."""
    return read_official_dit({**fields, "has_image_cross_attention": False})


def write_official_dit(config: DiTConfig) -> Fields:
    fields = {name: value for name, value in asdict(config).items() if name in _OFFICIAL_DIT_FIELDS}
    if not config.vace_layers:
        del fields["vace_layers"], fields["vace_in_dim"]
    return {"_class_name": "WanModel", "model_type": model_type(config), **fields}


def read_diffusers_dit(fields: Fields) -> DiTConfig:
    """The DiT that a Diffusers `transformer/config.json` describes."""
    _require(fields, qk_norm="rms_norm_across_heads", cross_attn_norm=True)
    picked = _pick(fields, _DIFFUSERS_DIT_FIELDS)
    dim = fields["num_attention_heads"] * fields["attention_head_dim"]
    return DiTConfig(dim=dim, has_image_cross_attention=fields.get("image_dim") is not None, **picked)


def write_diffusers_dit(config: DiTConfig) -> Fields:
    fields = {theirs: getattr(config, ours) for theirs, ours in _DIFFUSERS_DIT_FIELDS.items()}
    fields["pos_embed_seq_len"] = config.num_image_positions or None
    if config.text_len == DiTConfig.text_len:
        del fields["text_len"]  # not a Diffusers field: only our own models need it
    if not config.vace_layers:
        del fields["vace_layers"], fields["vace_in_channels"]
    return {
        "_class_name": "WanVACETransformer3DModel" if config.vace_layers else "WanTransformer3DModel",
        "attention_head_dim": config.head_dim,
        "added_kv_proj_dim": config.dim if config.has_image_cross_attention else None,
        "image_dim": IMAGE_DIM if config.has_image_cross_attention else None,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        **fields,
    }


def read_diffusers_vae(fields: Fields) -> VAEConfig:
    """The VAE that a Diffusers `vae/config.json` describes."""
    config = VAEConfig(**_pick(fields, _DIFFUSERS_VAE_FIELDS))
    _require(fields, attn_scales=[], in_channels=config.pixel_dim, out_channels=config.pixel_dim)
    # One spelling for one network, so that configs can be compared.
    return replace(config, decoder_dim=None) if config.decoder_dim == config.dim else config


def write_diffusers_vae(config: VAEConfig) -> Fields:
    fields = {theirs: getattr(config, ours) for theirs, ours in _DIFFUSERS_VAE_FIELDS.items()}
    fields["patch_size"] = config.patch_size if config.patch_size > 1 else None
    strides = {"scale_factor_temporal": config.temporal_stride, "scale_factor_spatial": config.spatial_stride}
    channels = {"in_channels": config.pixel_dim, "out_channels": config.pixel_dim}
    return {"_class_name": "AutoencoderKLWan", "attn_scales": [], "dropout": 0.0, **fields, **channels, **strides}


def read_diffusers_text(fields: Fields) -> TextEncoderConfig:
    """The encoder that Transformers' `config.json` of a umT5 describes."""
    _require(fields, feed_forward_proj="gated-gelu")
    return TextEncoderConfig(**_pick(fields, _DIFFUSERS_TEXT_FIELDS))


def write_diffusers_text(config: TextEncoderConfig) -> Fields:
    fields = {theirs: getattr(config, ours) for theirs, ours in _DIFFUSERS_TEXT_FIELDS.items()}
    fixed = {"feed_forward_proj": "gated-gelu", "pad_token_id": 0, "eos_token_id": 1, "is_encoder_decoder": False}
    return {"architectures": ["UMT5EncoderModel"], "model_type": "umt5", **fixed, **fields}


def read_own_vae(fields: Fields) -> VAEConfig:
    """Our own fields, by our own names: the official layout has no config for its VAE."""
    return VAEConfig(**_pick(fields, {name: name for name in VAEConfig.__dataclass_fields__}))


def read_own_text(fields: Fields) -> TextEncoderConfig:
    """Our own fields, by our own names: the official layout has no config for its text encoder."""
    return TextEncoderConfig(**_pick(fields, {name: name for name in TextEncoderConfig.__dataclass_fields__}))


def _pick(fields: Fields, names: dict[str, str]) -> Fields:
    """The fields known to us under our names; JSON lists become tuples."""
    found = {ours: fields[theirs] for theirs, ours in names.items() if fields.get(theirs) is not None}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def _require(fields: Fields, **expected: Any) -> None:
    """Raise ValueError where a field that we do not model differs from the only value we build."""
    for name, value in expected.items():
        if fields.get(name, value) != value:
            raise ValueError(f"{name} must be {value!r}, got {fields[name]!r}")


_DIFFUSERS_CLASSES = {
    "scheduler": ("diffusers", "UniPCMultistepScheduler"),
    "text_encoder": ("transformers", "UMT5EncoderModel"),
    "tokenizer": ("transformers", "T5TokenizerFast"),
    "transformer": ("diffusers", "WanTransformer3DModel"),
    "transformer_2": ("diffusers", "WanTransformer3DModel"),
    "vae": ("diffusers", "AutoencoderKLWan"),
}


def model_index(folders: list[str], boundary: float) -> Fields:
    """`model_index.json` of a directory that holds `folders`; boundary: noise level where the experts change places."""
    parts = {name: list(kind) for name, kind in _DIFFUSERS_CLASSES.items() if name in folders}
    extra = {"boundary_ratio": boundary} if boundary else {}
    return {"_class_name": "WanPipeline", **extra, **parts}


def scheduler_config(shift: float) -> Fields:
    """`scheduler/scheduler_config.json`: the solver that the official code uses by default."""
    return {
        "_class_name": "UniPCMultistepScheduler",
        "flow_shift": shift,
        "num_train_timesteps": NUM_TRAIN_TIMESTEPS,
        "prediction_type": "flow_prediction",
        "solver_order": 2,
        "solver_type": "bh2",
        "use_flow_sigmas": True,
    }
