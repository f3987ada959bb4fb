"""The norm of causal_conv3d_ring on the device. Imported when it is first run: the backend itself needs no Triton."""

import triton
import triton.language as tl

from wan_kernels.common.triton_conv3d_kernel import start_of

MIN_NORM = tl.constexpr(1e-12)


@triton.jit(do_not_specialize=["position", "num_past"])
def norm_frames_kernel(
    x,  # [B, num_frames, num_pixels, NUM_IN], contiguous
    ring,  # [B, NUM_SLOTS, num_pixels, NUM_IN], contiguous
    weight,  # [NUM_IN]
    normed,  # as x
    past,  # [B, NUM_PAST_SLOTS, num_pixels, NUM_IN], contiguous, or None where no frame before x is read
    position,
    num_past,  # of the frames before x, how many are read
    num_frames,
    num_pixels,
    root,  # of NUM_IN
    NUM_SLOTS: tl.constexpr,
    NUM_PAST_SLOTS: tl.constexpr,
    NUM_IN: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """A block of pixels with all their channels per program, in registers from the load to the store. Frames before x
    go from the ring's slots to those of `past`: frame -i lies in (num_past - i) % NUM_PAST_SLOTS there.

    The norm is that of channel_rms_norm_silu/kernels_triton.py, a second copy.
    """
    num_blocks = tl.cdiv(num_pixels, PIXELS)
    program = tl.program_id(0)
    frame = program // num_blocks % (num_past + num_frames) - num_past
    sample = program // num_blocks // (num_past + num_frames)
    pixel = program % num_blocks * PIXELS + tl.arange(0, PIXELS)[:, None]
    channel = tl.arange(0, CHANNELS)[None, :]
    inside = (pixel < num_pixels) & (channel < NUM_IN)
    at = pixel * NUM_IN + channel
    frame_size = num_pixels * NUM_IN
    source = start_of(x, ring, sample, frame, position, num_frames, frame_size, NUM_SLOTS)
    target = start_of(normed, past, sample, frame, num_past, num_frames, frame_size, NUM_PAST_SLOTS)
    y = tl.load(source + at, mask=inside, other=0.0).to(tl.float32)
    norm = tl.sqrt_rn(tl.sum(y * y, axis=1))[:, None]
    norm = tl.where(norm < MIN_NORM, MIN_NORM, norm)
    y *= (root / norm) * tl.load(weight + channel, mask=channel < NUM_IN, other=0.0).to(tl.float32)
    y /= 1.0 + tl.exp(-y)
    tl.store(target + at, y.to(normed.dtype.element_ty), mask=inside)
