"""The umT5 encoder against Transformers, and what training and padding ask of it."""

import pytest
import torch

from wan_model.config import TextEncoderConfig
from wan_model.conversion import diffusers_text_name
from wan_model.text_encoder import TextEncoder, near_sighted_biases, relative_buckets

CONFIG = TextEncoderConfig(vocab_size=97, dim=32, ffn_dim=48, num_heads=4, head_dim=16, num_layers=3)


def random_encoder(seed: int = 0) -> TextEncoder:
    torch.manual_seed(seed)
    encoder = TextEncoder(CONFIG)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            elif "pos_embedding" in name:
                parameter.normal_()
    return encoder


def tokens(length: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(0, CONFIG.vocab_size, (2, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, length // 2 :] = 0
    return ids, mask


def transformers_twin(encoder: TextEncoder) -> torch.nn.Module:
    transformers = pytest.importorskip("transformers", reason="transformers is the other side of this parity test")
    twin = transformers.UMT5EncoderModel(
        transformers.UMT5Config(
            vocab_size=CONFIG.vocab_size,
            d_model=CONFIG.dim,
            d_kv=CONFIG.head_dim,
            d_ff=CONFIG.ffn_dim,
            num_layers=CONFIG.num_layers,
            num_heads=CONFIG.num_heads,
            feed_forward_proj="gated-gelu",
        )
    ).eval()
    weights = {diffusers_text_name(name): tensor for name, tensor in encoder.state_dict().items()}
    weights["encoder.embed_tokens.weight"] = weights["shared.weight"]
    twin.load_state_dict(weights)
    return twin


# 300 tokens reach past the last exact bucket and past the largest distance that has a bucket of its own.
@pytest.mark.parametrize("length", [1, 7, 300])
def test_equals_transformers(length):
    encoder = random_encoder()
    ids, mask = tokens(length)
    mask[1, 0] = 1
    with torch.no_grad():
        expected = transformers_twin(encoder)(ids, attention_mask=mask).last_hidden_state * mask[..., None]
        actual = encoder(ids, mask)
    assert (actual - expected).abs().max() / expected.abs().max() <= 1e-5


def test_names_and_shapes_are_the_official_ones():
    shapes = {name: tuple(tensor.shape) for name, tensor in TextEncoder(CONFIG).state_dict().items()}
    assert len(shapes) == 2 + 10 * CONFIG.num_layers
    assert shapes["token_embedding.weight"] == (97, 32)
    assert shapes["norm.weight"] == (32,)
    assert {
        name.removeprefix("blocks.2."): shape for name, shape in shapes.items() if name.startswith("blocks.2.")
    } == {
        "norm1.weight": (32,),
        "attn.q.weight": (64, 32),
        "attn.k.weight": (64, 32),
        "attn.v.weight": (64, 32),
        "attn.o.weight": (32, 64),
        "norm2.weight": (32,),
        "ffn.gate.0.weight": (48, 32),
        "ffn.fc1.weight": (48, 32),
        "ffn.fc2.weight": (32, 48),
        "pos_embedding.embedding.weight": (32, 4),
    }


def test_xxl_has_the_published_size():
    with torch.device("meta"):
        encoder = TextEncoder(TextEncoderConfig())
    assert sum(p.numel() for p in encoder.parameters()) == 5_680_910_336
    assert len(encoder.state_dict()) == 242


def test_padding_changes_nothing_and_comes_back_as_zeros():
    encoder = random_encoder()
    ids, mask = tokens(9)
    other = ids.masked_fill(mask == 0, 5)
    with torch.no_grad():
        padded, repadded, cut = encoder(ids, mask), encoder(other, mask.bool()), encoder(ids[1:, :4], mask[1:, :4])
    assert torch.equal(padded, repadded)
    assert padded[1, 4:].abs().max() == 0
    torch.testing.assert_close(padded[1:, :4], cut, rtol=1e-5, atol=1e-5)


def test_buckets_are_exact_near_and_logarithmic_far():
    row = relative_buckets(300, CONFIG)[150]
    assert row[142:151].tolist() == [8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert row[151:159].tolist() == [17, 18, 19, 20, 21, 22, 23, 24]
    assert row[0] == 15
    assert row[-1] == 31
    assert row[22] == 15  # distance 128
    assert row[150:].diff().min() >= 0


def test_every_weight_has_the_right_gradient():
    encoder = random_encoder().double()
    ids, mask = tokens(6)
    weights = list(encoder.parameters())
    generator = torch.Generator().manual_seed(2)
    directions = [torch.randn(w.shape, dtype=w.dtype, generator=generator) for w in weights]
    probe = torch.randn(2, 6, CONFIG.dim, dtype=torch.float64, generator=generator)

    def objective() -> torch.Tensor:
        return (encoder(ids, mask) * probe).sum()

    objective().backward()
    slopes = [(w.grad * d).sum().item() for w, d in zip(weights, directions, strict=True)]
    step = 1e-6
    with torch.no_grad():
        for weight, direction, slope in zip(weights, directions, slopes, strict=True):
            weight.add_(direction, alpha=step)
            above = objective()
            weight.sub_(direction, alpha=2 * step)
            below = objective()
            weight.add_(direction, alpha=step)
            assert slope == pytest.approx(((above - below) / (2 * step)).item(), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_stays_close_and_finite(dtype):
    encoder = random_encoder()
    ids, mask = tokens(20)
    with torch.no_grad():
        expected = encoder(ids, mask)
        actual = encoder.to(dtype)(ids, mask)
    assert actual.dtype == dtype
    assert (actual.float() - expected).norm() / expected.norm() < 0.05


def test_float16_overflow_is_clamped():
    encoder = random_encoder()
    with torch.no_grad():
        for block in encoder.blocks:
            block.ffn.fc2.weight.mul_(1e6)
    ids, mask = tokens(5)
    with torch.no_grad():
        encoder.to(torch.float16)
        for block in encoder.blocks:
            block.ffn.fc2.weight.clamp_(-6e4, 6e4)
        assert encoder(ids, mask).isfinite().all()


def test_a_new_encoder_sees_its_neighbours_first():
    """Every other head looks back, the others ahead; so word order matters before anything is learned."""
    config = TextEncoderConfig(vocab_size=30, dim=16, ffn_dim=24, num_heads=4, head_dim=8, num_layers=1)
    biases = near_sighted_biases(config)
    table = biases[relative_buckets(6, config)]  # query, key, head
    back, ahead = table[3, :, 0].softmax(0), table[3, :, 1].softmax(0)
    assert back[2] == back[3] and back[2] > 2 * back[1] and back[:4].sum() > 0.9
    assert ahead[4] == ahead[3] and ahead[4] > 2 * ahead[5] and ahead[3:].sum() > 0.9
    torch.manual_seed(0)
    encoder = TextEncoder(config)
    ids = torch.tensor([[5, 6, 7, 8], [7, 6, 5, 8]])  # the first and the third word swapped
    first, second = encoder(ids, torch.ones_like(ids))
    assert (first[1] - second[1]).abs().max() > 0.05 * first[1].abs().max()
