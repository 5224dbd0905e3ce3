"""The synchformer reward, at small size: what it hears and sees, how it scores, what it loads and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from media import AVClip, read_clip, write_clip
from rewards import Prompt, get_reward
from rewards.synchformer import SynchformerConfig, SynchformerReward, inference
from rewards.synchformer.frontends import mel_segments, prepare_frames, prepare_waveform, resize_and_crop
from rewards.synchformer.loading import save_network
from rewards.synchformer.windows import window_indices
from synthetic.render import render_clip
from synthetic.scene import BACKGROUNDS, scene_from_seed
from tests.golden_files import real_clips
from tests.rewards.synchformer.small_synchformer import SMALL, noise_clip, small_network, small_reward

CLIPS = [
    noise_clip(2.0, seed=1),
    noise_clip(3.3, fps=24000 / 1001, height=90, width=48, sample_rate=44_100, channels=2, seed=2),
    noise_clip(0.4, fps=8, seed=3),
    noise_clip(1.0, sample_rate=0, seed=4),
    noise_clip(5.0, fps=30, height=50, width=80, seed=5),
]
SOUNDING = [0, 1, 2, 4]


def scores(reward, clips):
    return reward.score(clips, [Prompt(f"p{index}", "anything") for index in range(len(clips))])["desync"]


def delayed(clip, seconds):
    """The same picture with the sound later (or, for negative seconds, earlier)."""
    shift = round(seconds * clip.sample_rate)
    audio = np.roll(clip.audio, shift, axis=1)
    audio[:, slice(0, shift) if shift > 0 else slice(clip.num_samples + shift, None)] = 0
    return AVClip(clip.video, clip.fps, audio, clip.sample_rate)


def first_strike(clip):
    """When the first strike is heard in the segments that the network gets, s; each stands for its first half."""
    count = SMALL.count_segments(round(clip.duration_s * SMALL.fps))
    mel = mel_segments(prepare_waveform(clip, SMALL.samples_of(count), SMALL), SMALL)  # (S, 1, 128, 66)
    loudness = mel[:, 0, :, : SMALL.segment_hop_samples // SMALL.hop_length].mean(dim=1).flatten()  # 100 a second
    return loudness.diff().argmax().item() / 100


def test_a_clip_without_sound_has_no_score_and_the_others_keep_theirs():
    reward = small_reward()
    found = scores(reward, CLIPS)
    assert found.dtype == torch.float32
    assert found.isnan().tolist() == [False, False, False, True, False]
    assert all(0 <= score <= SMALL.max_offset_s for score in found[SOUNDING].tolist())
    assert scores(reward, [CLIPS[3]]).isnan().all()
    assert scores(reward, []).shape == (0,)


def test_a_score_does_not_depend_on_its_neighbours(monkeypatch):
    reward = small_reward()
    together = reward.offset_distribution(CLIPS)
    assert len({row.argmax().item() for row in together[SOUNDING]}) > 1  # the clips do differ
    monkeypatch.setattr(inference, "VIDEO_SEGMENTS_PER_FORWARD", 3)
    monkeypatch.setattr(inference, "AUDIO_SEGMENTS_PER_FORWARD", 4)
    monkeypatch.setattr(inference, "WINDOWS_PER_FORWARD", 1)
    alone = torch.cat([reward.offset_distribution([clip]) for clip in CLIPS])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-5, equal_nan=True)
    assert torch.equal(scores(reward, CLIPS)[SOUNDING], torch.cat([scores(reward, [CLIPS[i]]) for i in SOUNDING]))


def test_segments_of_all_clips_share_the_batches(monkeypatch):
    reward = small_reward()
    sizes = []
    encode = reward.network.vfeat_extractor.forward
    monkeypatch.setattr(
        reward.network.vfeat_extractor, "forward", lambda frames: sizes.append(len(frames)) or encode(frames)
    )
    scores(reward, [noise_clip(2.0, seed=seed) for seed in range(8)])  # 5 segments each
    assert sizes == [16, 16, 8]


def test_the_distribution_over_offsets():
    reward = small_reward()
    distribution = reward.offset_distribution(CLIPS)
    assert distribution.shape == (len(CLIPS), SMALL.num_offsets)
    assert distribution[3].isnan().all()
    torch.testing.assert_close(distribution[SOUNDING].sum(dim=1), torch.ones(len(SOUNDING)))
    assert reward.offsets_s[SMALL.num_offsets // 2] == 0
    assert reward.offsets_s[-1] == -reward.offsets_s[0] == SMALL.max_offset_s
    one_window = distribution[0].argmax()  # 5 segments, so the score is the likeliest offset itself
    assert scores(reward, CLIPS)[0] == reward.offsets_s[one_window].abs()


def test_the_benchmark_looks_at_four_seconds_however_long_a_clip_is():
    clip = CLIPS[4]
    longer = AVClip(np.concatenate([clip.video, clip.video]), clip.fps, np.tile(clip.audio, 2), clip.sample_rate)
    released, right = small_reward("javisbench"), small_reward()
    assert torch.equal(released.offset_distribution([clip]), released.offset_distribution([longer]))
    assert not torch.equal(right.offset_distribution([clip]), right.offset_distribution([longer]))
    assert released.version != right.version == SynchformerReward.version
    with pytest.raises(ValueError, match=r"protocol is 'javis': choose one of correct, javisbench"):
        small_reward("javis")


def test_the_benchmark_mixes_the_windows_of_clips_in_one_batch():
    clips = [noise_clip(4.0, seed=seed) for seed in range(6)]  # 11 segments: 3 of the small windows
    released, right = small_reward("javisbench"), small_reward()
    alone = torch.cat([scores(released, [clip]) for clip in clips])
    assert torch.equal(alone, scores(right, clips))
    mixed = scores(released, clips)
    assert not torch.allclose(mixed, alone)
    torch.testing.assert_close(mixed.mean(), alone.mean())


def test_a_clip_shorter_than_a_segment_is_padded_with_black_and_silence():
    clip = noise_clip(0.2, seed=7)
    black = np.zeros((11, 64, 64, 3), dtype=np.uint8)
    silence = np.zeros((1, 7_040), dtype=np.float32)
    padded = AVClip(np.concatenate([clip.video, black]), 25, np.concatenate([clip.audio, silence], 1), 16_000)
    reward = small_reward()
    assert torch.equal(reward.offset_distribution([clip]), reward.offset_distribution([padded]))


def test_the_picture_decides_how_much_of_the_sound_is_heard():
    clip = noise_clip(2.0, seed=8)
    more = np.concatenate([clip.audio, noise_clip(1.0, seed=9).audio], axis=1)
    reward = small_reward()
    longer_sound = AVClip(clip.video, clip.fps, more, clip.sample_rate)
    assert torch.equal(reward.offset_distribution([clip]), reward.offset_distribution([longer_sound]))


@pytest.mark.parametrize("offset_s", [0.0, 0.4, 0.8])
def test_strikes_of_bounce_are_heard_when_they_are_seen_and_late_when_they_are_late(tmp_path, offset_s):
    scene = next(s for s in map(scene_from_seed, range(100)) if s.num_impacts == 1 and s.impact_times[0] < 0.7)
    write_clip(delayed(render_clip(scene), offset_s), tmp_path / "clip.mp4")
    clip = read_clip(tmp_path / "clip.mp4")
    assert first_strike(clip) == pytest.approx(scene.impact_times[0] + offset_s, abs=0.03)

    frames = prepare_frames(clip, 50, SMALL).float()  # (50, 3, 64, 64) at 25 fps
    background = torch.tensor(BACKGROUNDS[scene.background]).view(3, 1, 1)
    ball = (frames - background).abs().sum(dim=1) > 60
    lowest = [rows.nonzero().max().item() if rows.any() else 0 for rows in ball.any(dim=2)]
    assert np.argmax(lowest) / SMALL.fps == pytest.approx(scene.impact_times[0], abs=1 / 16)


def test_an_offset_between_picture_and_sound_reaches_the_logits():
    clip = render_clip(scene_from_seed(3))
    found = small_reward().offset_distribution([delayed(clip, seconds) for seconds in (-0.8, -0.4, 0.0, 0.4, 0.8)])
    assert torch.pdist(found).min() > 1e-3


def test_a_narrow_picture_is_cut_in_the_middle():
    frames = torch.zeros(1, 64, 200, 3, dtype=torch.uint8)
    frames[:, :, 68:132] = 255  # the middle 64 columns
    assert (resize_and_crop(frames, 64) == 255).all()
    assert resize_and_crop(frames.transpose(1, 2), 64).shape == (1, 3, 64, 64)


def test_every_segment_takes_part_in_a_window():
    for count in range(1, 40):
        windows = window_indices(count, 14)
        assert windows.shape == (-(-count // 14), 14)
        assert set(windows.flatten().tolist()) == set(range(count))


def test_gradients_reach_every_weight_but_the_unused_ones():
    network = small_network()
    frames = torch.rand(2, 5, 16, 3, 64, 64) * 2 - 1
    logits = network(frames, torch.randn(2, 5, 1, 128, 66))
    torch.nn.functional.cross_entropy(logits, torch.tensor([3, 17])).backward()
    without = {name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()}
    assert without == {"vfeat_extractor.patch_embed.proj.weight", "vfeat_extractor.patch_embed.proj.bias"}


def test_a_window_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"has 5 segments, but video has 4.*window_indices"):
        small_network().fuse(torch.zeros(1, 4, 8, 96), torch.zeros(1, 4, 6, 96))


def test_bfloat16_gives_nearly_the_same(tmp_path):
    save_network(small_network(), tmp_path)
    exact, coarse = (SynchformerReward.load(str(tmp_path), dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert coarse.network.vproj.weight.dtype == torch.bfloat16
    found = coarse.offset_distribution(CLIPS)
    assert found.dtype == scores(coarse, CLIPS).dtype == torch.float32
    assert (found - exact.offset_distribution(CLIPS))[SOUNDING].abs().max() < 0.1
    (logits,) = inference.window_logits(coarse.network, CLIPS[:1], [5])
    assert (logits.bfloat16() != logits).float().mean() > 0.8  # finer than bfloat16, so that offsets do not tie
    with pytest.raises(ValueError, match=r"dtype is 'int8': give a floating type"):
        SynchformerReward.load(str(tmp_path), dtype="int8")


def test_logits_that_are_no_numbers_are_an_error_and_no_score():
    reward = small_reward()
    reward.network.transformer.off_head.bias[4] = float("nan")
    with pytest.raises(ValueError, match=r"not finite for clip 0 of 5.*dtype='float32'"):
        scores(reward, CLIPS)


def test_weights_load_as_published_and_as_saved(tmp_path):
    network = small_network()
    save_network(network, tmp_path / "ours")
    published = tmp_path / "published"
    published.mkdir()
    torch.save(network.state_dict(), published / "synchformer_state_dict.pth")
    (published / "config.json").write_bytes((tmp_path / "ours" / "config.json").read_bytes())
    wanted = SynchformerReward(network).offset_distribution(CLIPS)
    for path in (tmp_path / "ours", published, published / "synchformer_state_dict.pth"):
        loaded = get_reward("synchformer").load(str(path))
        assert loaded.network.config == SMALL
        assert torch.equal(loaded.offset_distribution(CLIPS)[SOUNDING], wanted[SOUNDING])


def test_another_model_is_refused_by_what_it_looks_like(tmp_path):
    torch.save({"modality_trunks.vision.blocks.0.norm_1.weight": torch.ones(4)}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=r"does not fit Synchformer: 513 missing.*looks like ImageBind"):
        SynchformerReward.load(str(tmp_path / "model.pth"))
    save_network(small_network(), tmp_path / "small")
    (tmp_path / "small" / "config.json").unlink()  # so the sizes are taken for the published ones
    with pytest.raises(ValueError, match=r"misshapen.*is \(1, 1, 96\), not \(1, 1, 768\).*looks like Synchformer"):
        SynchformerReward.load(str(tmp_path / "small"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"visual_widht": 96}', r"unknown key 'visual_widht': did you mean 'visual_width'"),
        ('{"visual_width": "96"}', r"sets visual_width to '96': give a whole number"),
        ('{"visual_width": 97}', r"visual_width=97 is no multiple of visual_heads=12"),
        ('{"fps": 24}', r"no whole number of samples"),
        ('{"mel_frames": 64}', r"mel_frames=64 is less than the 65 frames"),
        ('{"visual_depth": 0}', r"visual_depth is 0, but must be positive"),
    ],
)
def test_a_wrong_config_is_refused(tmp_path, content, message):
    save_network(small_network(), tmp_path)
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        SynchformerReward.load(str(tmp_path))


def test_the_published_sizes_are_the_default():
    assert SynchformerConfig().fusion_tokens == 198


def test_importing_the_reward_is_cheap():
    code = "import sys, rewards.synchformer; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=False).returncode == 0


def test_real_files_are_scored():
    clips = [read_clip(path) for path in real_clips()[-2:]]  # one with sound, one without
    found = scores(small_reward(), clips)
    assert [bool(score.isnan()) for score in found] == [not clip.has_audio for clip in clips]
