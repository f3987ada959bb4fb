"""The trainer: inflation keeps images, a run goes on as if never stopped, bad recipes are refused."""

import json
from pathlib import Path

import pytest
import torch

from wan_model.checkpoints import load_vae
from wan_model.training.loop import learning_rate, train
from wan_model.training.objective import flow_matching_pair, logit_normal_sigmas, vae_terms
from wan_model.training.recipe import Stage, load_recipe
from wan_model.training.vae import VAETask, draw_clips, inflate

VAE_RECIPE = """
kind = "vae"
preset = "tiny"
save_every_s = 0.0
[[stages]]
name = "images"
num_steps = 2
batch_size = 2
num_frames = 1
size = 16
learning_rate = 1e-3
[[stages]]
name = "clips"
num_steps = 3
batch_size = 1
num_frames = 5
size = 16
learning_rate = 1e-3
[[stages]]
name = "decoder"
num_steps = 1
batch_size = 1
num_frames = 5
size = 16
learning_rate = 1e-3
trains = "decoder"
"""

DIT_RECIPE = """
kind = "dit"
preset = "tiny"
num_clips = 3
[[stages]]
name = "text to video"
num_steps = 2
batch_size = 2
num_frames = 17
size = 96
learning_rate = 1e-3
"""


@pytest.fixture(autouse=True)
def few_clips(monkeypatch):
    monkeypatch.setattr("wan_model.training.vae.NUM_VALIDATION_CLIPS", 1)
    monkeypatch.setattr("wan_model.training.vae.NUM_STATISTICS_CLIPS", 2)
    monkeypatch.setattr("wan_model.training.dit.NUM_VALIDATION_CLIPS", 1)


def write(folder: Path, text: str, name: str = "recipe.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def task_of(tmp_path: Path) -> VAETask:
    torch.manual_seed(0)
    return VAETask(load_recipe(write(tmp_path, VAE_RECIPE)), tmp_path)


def test_an_inflated_vae_treats_a_still_clip_as_its_image(tmp_path):
    vae = task_of(tmp_path).model
    image = draw_clips("still", 1, 1, 32)
    with torch.no_grad():
        expected = vae.reconstruct(vae.moments(image)[0])
        inflate(vae)
        clip = vae.reconstruct(vae.moments(image.repeat(1, 1, 9, 1, 1))[0])
    error = (clip - expected).abs().max() / expected.abs().max()
    assert error <= 1e-5


def test_the_decoder_stage_leaves_the_encoder(tmp_path):
    task = task_of(tmp_path)
    loss, _ = task.loss(task.recipe.stages[2], "key")
    loss.backward()
    trained = {name.split(".")[0] for name, weight in task.model.named_parameters() if weight.grad is not None}
    assert trained == {"conv2", "decoder"}


def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path, monkeypatch):
    recipe = write(tmp_path, VAE_RECIPE)
    whole = train(recipe, tmp_path / "whole", assets=tmp_path / "whole model")
    import wan_model.training.loop as loop

    steps = iter(range(100))
    take_step = loop.take_step

    def stop_at_the_fourth(*arguments):
        if next(steps) == 3:
            raise KeyboardInterrupt
        return take_step(*arguments)

    monkeypatch.setattr(loop, "take_step", stop_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "parts", assets=tmp_path / "parts model")
    parts = train(recipe, tmp_path / "parts", assets=tmp_path / "parts model")
    expected, actual = (load_vae(folder).state_dict() for folder in (whole, parts))
    assert all(actual[name].equal(expected[name]) for name in expected)
    lines = [json.loads(line) for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines if line.get("event") == "end"] == ["images", "clips", "decoder"]


def test_vae_and_dit_recipes_make_a_model_that_generates(tmp_path):
    from wan_model.pipeline import generate, load_pipeline

    model = train(write(tmp_path, VAE_RECIPE, "vae.toml"), tmp_path / "vae")
    assert train(write(tmp_path, DIT_RECIPE, "dit.toml"), tmp_path / "dit") == model == tmp_path / "tiny"
    first = load_pipeline(model)
    train(write(tmp_path, 'start = "model"\n' + DIT_RECIPE.replace("1e-3", "0.0"), "more.toml"), tmp_path / "more")
    more = load_pipeline(model)
    assert all(a.equal(b) for a, b in zip(first.dits[0].parameters(), more.dits[0].parameters(), strict=True))
    result = generate(more, ["a red circle moves right"], num_steps=1, num_frames=5, size=(32, 32))
    assert result.videos_BCFYX.shape == (1, 3, 5, 32, 32)
    assert result.videos_BCFYX.isfinite().all()


def test_noise_levels_cover_the_range_and_ends_are_data_and_noise():
    sigmas = logit_normal_sigmas(1000, 0.0, 1.0, torch.Generator().manual_seed(0))
    assert 0 < sigmas.min() < 0.06 and 0.94 < sigmas.max() < 1
    assert abs(sigmas.median() - 0.5) < 0.01
    data, noise = torch.randn(2, 1, 2, 3), torch.randn(2, 1, 2, 3)
    noisy, velocity = flow_matching_pair(data, torch.tensor([0.0, 1.0]), noise)
    torch.testing.assert_close(noisy[0], data[0])
    torch.testing.assert_close(noisy[1], noise[1])
    torch.testing.assert_close(velocity, noise - data)


def test_a_perfect_reconstruction_costs_only_its_divergence():
    video = torch.randn(1, 3, 5, 8, 8)
    terms = vae_terms(video, video, torch.zeros(1, 2), torch.zeros(1, 2))
    assert all(term == 0 for term in terms.values())
    assert vae_terms(video, video, torch.ones(1, 2), torch.zeros(1, 2))["kl"] == 0.5


def test_the_learning_rate_warms_up_and_decays():
    stage = Stage("s", 1000, 1, 1, 16, learning_rate=1.0, num_warmup_steps=100, final_rate=0.1)
    rates = [learning_rate(stage, step) for step in (0, 99, 500, 999)]
    assert rates[0] < 0.02 and rates[1] > 0.95 and 0.5 < rates[2] < 0.6 and 0.09 < rates[3] < 0.11


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind = ", "TOML"),
        ('kind = "vae"\npreset = "tiny"', "at least one"),
        (VAE_RECIPE.replace("save_every_s", "save_evry_s"), "save_evry_s"),
        (VAE_RECIPE.replace("batch_size = 2\n", ""), "batch_size"),
    ],
)
def test_bad_recipes_are_refused_in_one_line(tmp_path, text, words):
    with pytest.raises(ValueError, match=words) as caught:
        load_recipe(write(tmp_path, text))
    assert "\n" not in str(caught.value)
