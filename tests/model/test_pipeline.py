"""The sampling loop: what depends on what, and what a callback may do."""

import dataclasses
import json
import os
from unittest import mock

import pytest
import torch
from small_model import SMALL, save_random_model, small_pipeline

from wan_model import pipeline as pipeline_module
from wan_model import plan, video_io
from wan_model.config import PRESETS, WAN22_VAE
from wan_model.pipeline import Cancelled, StepInfo, fits_joint_guidance, generate, load_pipeline, sample
from wan_model.plan import Memory, check_memory, estimate_memory
from wan_model.settings import make_settings
from wan_model.vae_plan import peak_bytes

RED, GREEN = "a red circle moves right", "a green square over the blue background moves left"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_pipeline(tmp_path_factory.mktemp("tokenizer"))


def assert_same_video(one, other):
    torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def test_video_has_the_size_and_length_asked_for(small):
    videos = generate(small, [RED], size=(48, 32), num_frames=9).videos_BCFYX
    assert videos.shape == (1, 3, 9, 32, 48)
    assert videos.isfinite().all() and videos.abs().max() <= 1


def test_one_frame_makes_an_image(small):
    assert generate(small, [RED], num_frames=1).videos_BCFYX.shape == (1, 3, 1, 32, 32)


def test_same_seed_same_video_other_seed_other_video(small):
    first = generate(small, [RED], seed=7).videos_BCFYX
    assert torch.equal(first, generate(small, [RED], seed=7).videos_BCFYX)
    assert (first - generate(small, [RED], seed=8).videos_BCFYX).abs().max() > 0.01


def test_seed_does_not_depend_on_the_global_generator(small):
    first = generate(small, [RED]).videos_BCFYX
    torch.manual_seed(123)
    assert torch.equal(first, generate(small, [RED]).videos_BCFYX)


def test_prompt_and_negative_prompt_matter(small):
    red = generate(small, [RED]).videos_BCFYX
    assert (red - generate(small, [GREEN]).videos_BCFYX).abs().max() > 1e-3
    assert (red - generate(small, [RED], negative_prompts="blue").videos_BCFYX).abs().max() > 1e-4


def test_video_does_not_depend_on_its_batch_mates(small):
    batch = generate(small, [RED, GREEN], seed=3).videos_BCFYX
    assert_same_video(batch[0], generate(small, [RED], seed=3).videos_BCFYX[0])
    assert_same_video(batch[1], generate(small, [GREEN], seed=4).videos_BCFYX[0])
    swapped = generate(small, [GREEN, RED], seed=[4, 3]).videos_BCFYX
    assert_same_video(batch.flip(0), swapped)


@pytest.mark.parametrize("solver", ["unipc", "dpm++", "euler"])
def test_joint_and_separate_guidance_agree(small, solver):
    videos = []
    for is_joint in (True, False):
        with mock.patch.object(pipeline_module, "fits_joint_guidance", return_value=is_joint):
            videos.append(generate(small, [RED, GREEN], solver=solver).videos_BCFYX)
    assert_same_video(*videos)


def test_guidance_of_one_runs_no_negative_pass(small):
    sizes = []
    hook = small.dits[0].register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))
    try:
        generate(small, [RED], guidance_scale=1, num_steps=2)
        generate(small, [RED], guidance_scale=2, num_steps=2)
    finally:
        hook.remove()
    assert sizes == [1, 1, 2, 2]


def test_joint_guidance_only_where_it_fits(small):
    settings = make_settings(SMALL, [RED])
    with mock.patch.object(pipeline_module, "free_bytes", return_value=1):
        assert not fits_joint_guidance(small, settings)
    with mock.patch.object(pipeline_module, "free_bytes", return_value=None):
        assert fits_joint_guidance(small, settings)


def test_callback_sees_every_step_and_a_preview(small):
    seen: list[StepInfo] = []
    generate(small, [RED], num_steps=4, callback=seen.append)
    assert [(info.step, info.num_steps) for info in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [info.timestep for info in seen] == sorted((info.timestep for info in seen), reverse=True)
    preview = seen[-1].preview()
    assert preview.shape == (1, 3, 1, 32, 32) and preview.abs().max() <= 1


def test_last_preview_is_the_first_frame(small):
    # Euler's last step lands exactly on what the model then expects.
    seen: list[StepInfo] = []
    video = generate(small, [RED], solver="euler", callback=seen.append).videos_BCFYX
    assert_same_video(seen[-1].preview(), video[:, :, :1])


def test_callback_cancels(small):
    seen = []

    def stop_at_two(info):
        seen.append(info.step)
        return info.step < 2

    with pytest.raises(Cancelled, match="step 2 of 3"):
        generate(small, [RED], callback=stop_at_two)
    assert seen == [1, 2]


def test_two_experts_share_the_steps(tmp_path):
    config = dataclasses.replace(SMALL, num_experts=2, expert_boundary=0.6)
    experts = small_pipeline(tmp_path, config)
    counts = [0, 0]

    def count(index):
        def hook(module, args, output):
            assert (args[1] >= 600).all() == (index == 0)
            counts[index] += 1

        return hook

    for index, dit in enumerate(experts.dits):
        dit.register_forward_hook(count(index))
    generate(experts, [RED], num_steps=6, shift=1.0)
    assert sum(counts) == 6 and min(counts) > 0


def test_model_that_needs_an_image_is_refused(small):
    image_model = dataclasses.replace(small, config=dataclasses.replace(SMALL, model_type="i2v"))
    with pytest.raises(ValueError, match=r"\[model\] must be one that starts from text"):
        sample(image_model, make_settings(SMALL, [RED]))


@pytest.mark.parametrize("layout", ["official", "diffusers"])
def test_model_with_the_vae_of_2_2_is_found_and_makes_videos(layout, tmp_path, monkeypatch):
    """What TI2V-5B needs, from its directory to its pixels, a few channels wide."""
    small = dataclasses.replace(
        SMALL,
        model_type="ti2v",
        dit=dataclasses.replace(SMALL.dit, in_dim=48, out_dim=48),
        vae=dataclasses.replace(WAN22_VAE, dim=4, decoder_dim=8),
        sampling=dataclasses.replace(SMALL.sampling, size=(64, 32)),
    )
    monkeypatch.setitem(PRESETS, "small", small)
    save_random_model(tmp_path / "small", layout, small)
    pipeline = load_pipeline(tmp_path / "small", device="cpu")
    assert pipeline.config == small
    seen: list[StepInfo] = []
    videos = generate(pipeline, [RED, GREEN], solver="euler", callback=seen.append).videos_BCFYX
    assert videos.shape == (2, 3, 5, 32, 64)
    # Euler's last step lands exactly on what the model then expects.
    assert_same_video(videos, pipeline.vae.decode(seen[-1].denoised_BCTYX, chunk=2))
    with pytest.raises(ValueError, match=r"\[size\] must be multiples of 32x32 pixels, got 48x32; use"):
        generate(pipeline, [RED], size=(48, 32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_frames": 16}, r"\[frames\] must be 4n \+ 1, got 16; use 13 or 17"),
        ({"num_frames": 0}, r"\[frames\] must be 4n \+ 1, got 0; use 1"),
        ({"size": (100, 96)}, r"\[size\] must be multiples of 16x16 pixels, got 100x96; use 96x96"),
        ({"size": (0, 0)}, r"got 0x0; use 16x16"),
        ({"num_steps": 0}, r"\[steps\] must be in \[1, 1000\], got 0"),
        ({"shift": 0.0}, r"\[shift\] must be positive, got 0"),
        ({"shift": float("nan")}, r"\[shift\] must be positive, got nan"),
        ({"guidance_scale": float("nan")}, r"\[guidance\] must be in"),
        ({"fps": 0}, r"\[fps\] must be in \[1, 240\], got 0"),
        ({"seed": -1}, r"\[seed\] must be in"),
        ({"seed": [1, 2]}, r"\[seed\] must be given once or once per prompt \(1\), got 2"),
        ({"negative_prompts": ["a", "b"]}, r"\[negative prompt\] must be given once or once per prompt \(1\), got 2"),
        ({"solver": "heun"}, r"\[solver\] must be one of unipc, dpm\+\+, euler, got 'heun'"),
        ({"noise_device": "tpu"}, r"\[noise device\] must be cpu or cuda, got 'tpu'"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make_settings(SMALL, [RED], **options)


def test_bad_prompts_are_named():
    with pytest.raises(ValueError, match=r"\[prompt\] must not be empty, got '  '"):
        make_settings(SMALL, [RED, "  "])
    with pytest.raises(ValueError, match="at least 1 prompt"):
        make_settings(SMALL, [])
    with pytest.raises(TypeError, match="put it in a list"):
        make_settings(SMALL, RED)


def test_memory_is_foreseen():
    needed = Memory(dit_bytes=10**15, text_bytes=0, vae_bytes=0, forward_peak_bytes=0, decode_peak_bytes=0)
    with pytest.raises(ValueError, match=r"\[memory\] cpu must have 1000000.0 GB free"):
        check_memory(needed, torch.device("cpu"))


def test_a_container_limit_counts_and_its_page_cache_does_not(tmp_path):
    assert plan._cgroup_bytes(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 100\ninactive_file 400\nactive_file 150\n")
    assert plan._cgroup_bytes(tmp_path) == 850
    (tmp_path / "memory.max").write_text("max\n")
    assert plan._cgroup_bytes(tmp_path) is None


def test_memory_estimate_bounds_what_a_forward_allocates():
    small = estimate_memory(SMALL, (32, 32), 5, dtype=torch.float32)
    large = estimate_memory(SMALL, (64, 64), 17, dtype=torch.float32)
    assert small.weight_bytes == large.weight_bytes
    assert 0 < small.forward_peak_bytes < large.forward_peak_bytes
    assert 0 < small.decode_peak_bytes < large.decode_peak_bytes
    # Frames are written as they are decoded, so a longer video takes no more.
    longer = estimate_memory(SMALL, (64, 64), 81, dtype=torch.float32)
    assert longer.decode_peak_bytes == large.decode_peak_bytes
    assert longer.forward_peak_bytes > large.forward_peak_bytes


def test_frames_are_written_as_they_are_decoded(small, tmp_path, monkeypatch):
    result = generate(small, [RED, GREEN], num_frames=17)
    log: list[object] = []

    def write(path, frames, fps):
        for frame in frames:
            log.append("written" if frame.shape == (32, 32, 3) else "sheet")
        path.touch()

    monkeypatch.setattr(video_io, "encode", write)
    result.save(tmp_path / "a.mp4", plan=result.plan_decoding("none"), advance=log.append)
    # Five latents in chunks of four: the fifth is asked for when the first thirteen frames have been written.
    assert log == 2 * [1, 4, 4, *["written"] * 13, 4, 4, *["written"] * 4, "sheet"]
    assert "videos_BCFYX" not in vars(result)


def test_an_interrupted_decoding_leaves_no_half_video(small, tmp_path):
    result = generate(small, [RED, GREEN], num_frames=9)
    seen = []

    def stop(count):
        seen.append(count)
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        result.save(tmp_path / "a.mp4", advance=stop)
    video, _ = video_io.playable(tmp_path / "a-1.mp4")
    assert sorted(os.listdir(tmp_path)) == sorted(["a-1.json", video.name, "a-1.sheet.png"])


def test_what_is_saved_is_what_the_result_holds(small, tmp_path):
    result = generate(small, [RED], num_frames=1)
    (saved,) = result.save(tmp_path / "a.png")
    assert (video_io.read_video(saved.video) == video_io.to_frames(result.videos_BCFYX[0])).all()


def test_little_memory_is_met_with_tiles_and_the_record_says_so(small, tmp_path, monkeypatch):
    result = generate(small, [RED], size=(320, 176), num_frames=5, num_steps=1)
    untiled = result.plan_decoding()
    assert untiled.tiling.num_tiles == 1
    monkeypatch.setattr(pipeline_module, "free_bytes", lambda device: peak_bytes(
        SMALL.vae, 176, 320, 1, torch.float32, "decode") - 1)  # fmt: skip
    plan = result.plan_decoding()
    assert plan.why.startswith("chunk 2, 2 tiles of 192x176: decode at 320x176 takes ")
    counts = []
    (saved,) = result.save(tmp_path / "a.gif", plan=plan, advance=counts.append)
    assert json.loads(saved.record.read_text())["tile"] == [192, 176] and sum(counts) == 2 * 5
    tiled, whole = (torch.cat(list(result.decode(0, each)), dim=2) for each in (plan, untiled))
    assert tiled.shape == whole.shape == (1, 3, 5, 176, 320)
    assert torch.equal(whole, result.videos_BCFYX)
    assert 0 < (tiled - whole).abs().mean() < 0.05
    with pytest.raises(ValueError, match=r"\[memory\] decode at 320x176 must have"):
        result.plan_decoding("none")


def test_result_is_saved_with_everything_needed_to_make_it_again(small, tmp_path):
    result = generate(small, [RED, GREEN], seed=5, num_frames=5)
    saved = result.save(tmp_path / "out.gif", sampling_s=1.0)
    assert [each.video.name for each in saved] == ["out-1.gif", "out-2.gif"]
    record = json.loads(saved[1].record.read_text())
    again = generate(
        small, [record["prompt"]], seed=record["seed"], negative_prompts=record["negative_prompt"],
        size=tuple(record["size"]), num_frames=record["num_frames"], num_steps=record["num_steps"],
        shift=record["shift"], guidance_scale=record["guidance_scale"], solver=record["solver"],
    )  # fmt: skip
    assert_same_video(again.videos_BCFYX[0], result.videos_BCFYX[1])
    assert (
        record["tile"] is None
        and record["model"] == "small"
        and record["sampling_s"] == 1.0
        and record["video"] == "out-2.gif"
    )
