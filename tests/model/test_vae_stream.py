"""Streams through the VAE: the same bits as one pass, however they are cut, in memory that does not grow."""

import pytest
import torch

from wan_model.config import WAN21_LATENTS_MEAN, WAN21_LATENTS_STD, VAEConfig
from wan_model.tracing import trace
from wan_model.vae import WanVAE

CONFIG = VAEConfig(
    dim=4, dim_mult=(1, 1, 2, 2), num_res_blocks=1, latents_mean=WAN21_LATENTS_MEAN, latents_std=WAN21_LATENTS_STD
)
WAYS_TO_CUT = ([1] * 29, [29], [2] * 14 + [1], [3, 9, 1, 16], [28, 1])


@pytest.fixture(scope="module")
def vae() -> WanVAE:
    torch.manual_seed(0)
    return WanVAE(CONFIG).eval()


@pytest.fixture(scope="module")
def video() -> torch.Tensor:
    return torch.rand(2, 3, 29, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1


def pieces_of(tensor, lengths):
    return iter(tensor.split(lengths, dim=2))


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("lengths", WAYS_TO_CUT, ids=str)
def test_a_stream_is_one_pass_however_it_is_cut(vae, video, chunk, lengths):
    latents = vae.encode(video, chunk=chunk)
    streamed = list(vae.encode_stream(pieces_of(video, lengths), chunk=chunk))
    assert [part.shape[2] for part in streamed] == ([1] * 8 if chunk == 1 else [3, 3, 2])
    assert torch.equal(torch.cat(streamed, dim=2), latents)


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("lengths", [[1] * 8, [8], [3, 5], [1, 4, 3]], ids=str)
def test_decoding_a_stream_is_one_pass_however_it_is_cut(vae, chunk, lengths):
    latents = torch.randn(2, 16, 8, 2, 3, generator=torch.Generator().manual_seed(2))
    frames = vae.decode(latents, chunk=chunk)
    streamed = list(vae.decode_stream(pieces_of(latents, lengths), chunk=chunk))
    assert [part.shape[2] for part in streamed] == ([1] + [4] * 7 if chunk == 1 else [9, 12, 8])
    assert torch.equal(torch.cat(streamed, dim=2), frames)


def test_each_piece_comes_as_soon_as_it_can(vae, video):
    """One stream into the other: after n frames read, all that they decide has come out."""
    num_read = 0

    def frames():
        nonlocal num_read
        for frame in video.split(1, dim=2):
            num_read += 1
            yield frame

    come = [(num_read, part.shape[2]) for part in vae.decode_stream(vae.encode_stream(frames()))]
    assert come == [(1, 1), *((n, 4) for n in range(5, 30, 4))]


def test_gradients_stay_off_inside_and_as_they_were_outside(vae, video):
    stream = vae.encode_stream([video])
    assert not next(stream).requires_grad and torch.is_grad_enabled()


def test_frames_are_cast_to_the_weights(vae, video):
    assert torch.equal(vae.encode(video.double()), vae.encode(video))


def peak_bytes(num_latents: int, chunk: int) -> tuple[int, int]:
    """Live tensors at most, traced on meta tensors: encoding and decoding."""
    stride = CONFIG.temporal_stride
    with torch.device("meta"):
        vae = WanVAE(CONFIG).eval()

    def frames():
        for _ in range(1 + stride * (num_latents - 1)):
            yield torch.empty(1, 3, 1, 16, 24, device="meta")

    def latents():
        for _ in range(num_latents):
            yield torch.empty(1, 16, 1, 2, 3, device="meta")

    return (
        trace(lambda: [None for _ in vae.encode_stream(frames(), chunk)]).peak_bytes,
        trace(lambda: [None for _ in vae.decode_stream(latents(), chunk)]).peak_bytes,
    )


@pytest.mark.parametrize("chunk", [1, 2])
def test_memory_does_not_grow_with_the_length(chunk):
    short, long = peak_bytes(3 * chunk, chunk), peak_bytes(5 * chunk, chunk)
    assert short == long
    # What the test would see if it did grow: the same frames in one piece.
    assert peak_bytes(6 * chunk, 6 * chunk)[1] > 1.5 * short[1]


@pytest.mark.parametrize(("num_frames", "near"), [(16, "13 or 17"), (2, "1 or 5"), (8, "5 or 9")])
def test_a_stream_that_ends_in_the_middle_names_its_neighbours(vae, video, num_frames, near):
    message = rf"\[vae\] number of frames must be 4n \+ 1, got {num_frames}; {near} would do"
    cut = video[:, :, :num_frames]
    with pytest.raises(ValueError, match=message):
        vae.encode(cut)
    stream = vae.encode_stream(cut.split(1, dim=2), chunk=2)
    with pytest.raises(ValueError, match=message):
        list(stream)


def test_what_no_stream_can_be_is_named(vae, video):
    latents = vae.encode(video[:, :, :5])
    cases = (
        (vae.encode_stream([]), "stream must hold at least 1 frame, got none"),
        (vae.decode_stream([]), "stream must hold at least 1 frame, got none"),
        (vae.encode_stream([video], chunk=0), "chunk must be at least 1 latent frame, got 0"),
        (vae.encode_stream([video[0]]), r"must have shape \[B, 3, T, Y, X\], none of them 0, got \[3, 29, 16, 24\]"),
        (vae.encode_stream([video[:, :, :0]]), r"none of them 0, got \[2, 3, 0, 16, 24\]"),
        (vae.decode_stream([latents[:, :8]]), r"must have shape \[B, 16, T, Y, X\].*got \[2, 8, 2, 2, 3\]"),
        (vae.encode_stream([video, video[..., :8, :]]), r"must stay \(2, 3, 16, 24\) along a stream, got \(2, 3, 8"),
        (vae.decode_stream([latents, latents[:1]]), r"must stay \(2, 16, 2, 3\) along a stream, got \(1, 16"),
        (vae.encode_stream([video[..., :13, :20]]), "multiples of 8 pixels, got 20x13; 16x8 or 24x16 would do"),
        (vae.encode_stream([video[..., :4, :]]), "multiples of 8 pixels, got 24x4; 24x8 would do"),
    )
    for stream, message in cases:
        with pytest.raises(ValueError, match=r"\[vae\] .*" + message):
            list(stream)
