"""Regional losers: equal to the winner outside the masks to the bit, and made by the model inside."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from datasets import load_from_disk

from dpo.construct.command import construct, main
from dpo.construct.config import ConstructConfig
from dpo.construct.regional import first_step, regenerate
from dpo.construct.winners import Winners
from dpo.data.dataset import PairCollator, PairDataset
from dpo.data.verdict import read_verdicts
from dpo.train.command import main as train
from model.data.draws import stack_texts
from model.flow import sampling_timesteps
from model.train.callbacks import read_log
from tests.dpo.dpo_helpers import make_rows, make_trainer, save_rows
from tests.dpo.dpo_pipeline import save_pipeline
from tests.model.train.latent_rows import save_dataset
from tests.small_latents import AUDIO_SHAPE, TEXT_DIM, TEXT_LEN, VIDEO_SHAPE, negative_text, small_network


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_pipeline(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    return save_dataset(tmp_path_factory.mktemp("clips") / "latents")


def settings(latents, model, folder, **changes):
    values = {
        "latents": str(latents),
        "model": str(model),
        "output": str(folder),
        "distortion": "regional",
        "num_inference_steps": 4,
        "guidance_scale": 3.0,
    }
    return ConstructConfig(**(values | changes))


@pytest.fixture(scope="module")
def constructed(latents, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("regional") / "data"
    construct(settings(latents, model, folder))
    return folder


def rows_of(folder):
    return load_from_disk(str(folder)).with_format("numpy")


def test_members_differ_inside_the_masks_alone(constructed, latents):
    winners, strengths = Winners(latents), set()
    for number, row in enumerate(rows_of(constructed)):
        assert row["pair_id"] == f"{winners[number].winner_id}>regional"
        strengths.add(round(float(row["strength"]), 2))
        for name in ("video", "audio"):
            size = [1, *row[f"{name}_latents_shape"][1:]]
            mask = np.broadcast_to(row[f"{name}_mask"].reshape(size), row[f"{name}_latents_shape"]).ravel() == 1
            winner, loser = (row[f"{side}_{name}_latents"].astype(np.float16) for side in ("chosen", "rejected"))
            assert np.array_equal(winner, winners[number].latents[name].ravel())
            assert np.array_equal(winner[~mask].view(np.uint16), loser[~mask].view(np.uint16))
            assert mask.any()
            assert (winner[mask] != loser[mask]).mean() > 0.9
    assert strengths <= {0.75, 0.8, 0.85}
    assert len(strengths) > 1


def test_noise_and_masks_are_each_pairs_own(constructed):
    rows = rows_of(constructed)
    changes = [(row["rejected_audio_latents"] - row["chosen_audio_latents"]).tobytes() for row in rows]
    assert len(set(changes)) == len(rows)
    assert len({row["audio_mask"].tobytes() for row in rows}) > len(rows) // 2


def test_same_seed_makes_the_same_losers(constructed, latents, model, tmp_path):
    construct(settings(latents, model, tmp_path / "again"))
    construct(settings(latents, model, tmp_path / "other", seed=1))
    same, other = (
        [row["rejected_video_latents"].tobytes() for row in rows_of(tmp_path / n)] for n in ("again", "other")
    )
    expected = [row["rejected_video_latents"].tobytes() for row in rows_of(constructed)]
    assert same == expected
    assert not set(other) & set(expected)


def test_one_modality_alone_keeps_the_other_to_the_bit(latents, model, tmp_path):
    construct(settings(latents, model, tmp_path / "data", regions=["video"]))
    for row in rows_of(tmp_path / "data"):
        assert len(row["audio_mask"]) == 0
        assert np.array_equal(row["rejected_audio_latents"], row["chosen_audio_latents"])
        assert not np.array_equal(row["rejected_video_latents"], row["chosen_video_latents"])


def inputs(seed=0, mask_share=1.0):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"video": (1, *VIDEO_SHAPE), "audio": (1, *AUDIO_SHAPE)}
    clean, noise = ({name: torch.randn(shape, generator=generator) for name, shape in shapes.items()} for _ in range(2))
    inside = {name: torch.rand(1, 1, *shape[2:], generator=generator) < mask_share for name, shape in shapes.items()}
    text, mask = stack_texts([torch.randn(3, TEXT_DIM, generator=generator)] * 2, TEXT_LEN)
    return {"clean": clean, "noise": noise, "inside": inside, "text": text, "text_mask": mask, "num_frames": 9}


def test_full_mask_from_the_first_step_is_plain_sampling():
    """Everything is generated: the result equals Euler steps with guidance, whatever the clean latents are."""
    network, values = small_network().eval(), inputs()
    grid = sampling_timesteps(3, 32, 32, 9, 1.0)
    made = regenerate(network, **values, timesteps=grid, guidance_scale=2.0)
    video, audio = values["noise"]["video"], values["noise"]["audio"]
    with torch.no_grad():
        for now, following in pairwise(grid):
            timestep = now.expand(2)
            velocity = network(
                video.expand(2, -1, -1, -1, -1), audio.expand(2, -1, -1, -1), timestep, values["text"],
                values["text_mask"], 9,
            )  # fmt: skip
            step = (following - now) / 1000
            video = video + step * (velocity.video[1:] + 2 * (velocity.video[:1] - velocity.video[1:]))
            audio = audio + step * (velocity.audio[1:] + 2 * (velocity.audio[:1] - velocity.audio[1:]))
    torch.testing.assert_close(made["video"], video)
    torch.testing.assert_close(made["audio"], audio)


def test_outside_follows_the_clean_latents_at_every_level():
    """What the network sees outside is the clean clip, noised to the level of the step with the same noise."""
    seen, values = [], inputs(mask_share=0.3)

    class Watching(torch.nn.Module):
        def forward(self, video, audio, timestep, *others):
            seen.append((timestep[0].item() / 1000, video[:1], audio[:1]))
            return network(video, audio, timestep, *others)

    network = small_network().eval()
    grid = sampling_timesteps(8, 32, 32, 9, 1.0)[first_step(8, 0.5) :]
    made = regenerate(Watching(), **values, timesteps=grid, guidance_scale=2.0)
    assert len(seen) == 4
    for sigma, *latents in seen:
        for name, latent in zip(("video", "audio"), latents, strict=True):
            outside = ~values["inside"][name].expand_as(latent)
            expected = (1 - sigma) * values["clean"][name] + sigma * values["noise"][name]
            torch.testing.assert_close(latent[outside], expected[outside])
    for name, latent in made.items():
        outside = ~values["inside"][name].expand_as(latent)
        torch.testing.assert_close(latent[outside], values["clean"][name][outside], rtol=0, atol=0)


def test_first_step_leaves_the_published_number_of_steps():
    assert [50 - first_step(50, strength) for strength in (0.75, 0.8, 0.85, 1.0)] == [38, 40, 42, 50]
    assert first_step(4, 0.61) == 2
    assert first_step(1, 0.7) == 0


def test_batches_hold_masks_of_the_pairs(constructed):
    dataset = PairDataset.load(constructed)
    batch = PairCollator(0, negative_text(), text_len=TEXT_LEN)([dataset[0], dataset[2]])
    assert batch["masks"]["video"].shape == (2, 1, *VIDEO_SHAPE[1:])
    assert batch["masks"]["audio"].shape == (2, 1, *AUDIO_SHAPE[1:])
    row = rows_of(constructed)[2]
    assert torch.equal(batch["masks"]["audio"][1].flatten(), torch.from_numpy(row["audio_mask"]).float())
    assert batch["strength"][1].item() == pytest.approx(row["strength"])


def test_region_term_trains_and_is_logged(constructed, model, tmp_path):
    """The weight adds the term to the loss of the first step, where the margin is 0: log 2 for each modality."""
    losses = {}
    for weight in (0, 2):
        flags = ["--model", str(model), "--dataset", str(constructed), "--output_dir", str(tmp_path / str(weight))]
        options = ["--max_steps", "2", "--use_cpu", "true", "--fm_weight", "0", "--region_weight", str(weight)]
        assert train([*flags, *options, "--logging_steps", "1", "--warmup_steps", "0", "--lora_r", "2"]) == 0
        losses[weight] = read_log(tmp_path / str(weight))
    assert losses[2][0]["loss"] - losses[0][0]["loss"] == pytest.approx(2 * 2 * np.log(2), abs=1e-3)
    assert losses[2][0]["region/margins/video"] == 0.0
    assert losses[2][0]["region/error/rejected/audio"] > 0
    assert "region/margins/video" not in losses[0][0]
    assert losses[2][1]["region/margins/video"] != 0.0


def test_region_weight_without_regions_or_predictions_is_refused(tmp_path):
    trainer = make_trainer(tmp_path / "out", region_weight=1.0)
    with pytest.raises(ValueError, match="Masks are given for"):
        trainer.train()
    for changes, message in (
        ({"region_weight": 1.0, "precompute_ref_errors": True}, "region_weight needs the reference's predictions"),
        ({"region_weight": -1.0}, "which would train towards the loser"),
    ):
        with pytest.raises(ValueError, match=message):
            make_trainer(tmp_path / "out", **changes)


def test_the_command_names_pairs_without_regions(latents, model, tmp_path, capsys):
    folder = save_rows(tmp_path / "plain", make_rows())
    flags = ["--model", str(model), "--dataset", str(folder), "--output_dir", str(tmp_path / "out")]
    assert train([*flags, "--use_cpu", "true", "--region_weight", "1", "--dry_run"]) == 2
    assert (
        "has no masks: make its pairs with `python -m dpo.construct --distortion regional`" in capsys.readouterr().err
    )


def test_no_signal_test_judges_regions(constructed):
    assert read_verdicts(constructed) == {}


def test_dry_run_counts_the_passes(latents, model, tmp_path, capsys):
    flags = ["--latents", str(latents), "--model", str(model), "--output", str(tmp_path / "out"), "--dry_run"]
    assert main([*flags, "--distortion", "regional", "--num_inference_steps", "10", "--strengths", "0.8"]) == 0
    out = capsys.readouterr().out
    assert "regions of video and audio are generated anew by 0.8 of 10 steps" in out
    assert "about 64 passes of the network on 2 clip(s)" in out
