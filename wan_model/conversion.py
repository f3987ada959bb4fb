"""Names of the Diffusers releases, written as functions of the official names.

One direction is enough: a loader knows the official names it wants, so it maps those and looks each one up.
Source: the modules of diffusers 0.42 (`transformer_wan.py`, `transformer_wan_vace.py`, `autoencoder_kl_wan.py`) and
transformers' `modeling_umt5.py`.
"""

import re

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

    The official decoder is one flat list; a Diffusers level holds `num_res_blocks + 1` blocks and one upsampler.
    """

    def nest(match: re.Match[str]) -> str:
        level, place = divmod(int(match[1]), num_res_blocks + 2)
        is_upsampler = place > num_res_blocks
        return f".up_blocks.{level}.upsamplers.0." if is_upsampler else f".up_blocks.{level}.resnets.{place}."

    return re.sub(r"\.upsamples\.(\d+)\.", nest, _rewrite(name, _VAE_RULES))


def diffusers_text_name(name: str) -> str:
    """`blocks.0.attn.q.weight` -> `encoder.block.0.layer.0.SelfAttention.q.weight`."""
    return _rewrite(name, _TEXT_RULES)
