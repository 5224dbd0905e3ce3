"""The full-size Synchformer gives the published numbers, with weights made from the tensors' names."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from media import AVClip
from media.clip import empty_audio
from rewards.synchformer import SynchformerConfig
from rewards.synchformer.frontends import (
    cut_frames,
    frame_indices,
    mel_segments,
    normalise_frames,
    prepare_frames,
    prepare_waveform,
)
from rewards.synchformer.inference import window_logits
from rewards.synchformer.network import Synchformer
from rewards.synchformer.windows import desync, desync_as_released, offset_grid, window_indices
from tests.golden_files import Golden, golden_path
from tests.rewards.procedural import fill

FULL = SynchformerConfig()
TOLERANCE = 5e-5
SCORE_TOLERANCE = 1e-6


def golden(name):
    return Golden(f"synchformer_imagebind/sync_{name}.safetensors")


def largest_difference(ours, wanted):
    assert ours.shape == wanted.shape
    return (ours.double() - wanted.double()).abs().max().item()


def golden_clip(file, prefix):
    """A clip of a golden file; without sound where the file has none."""
    wave = file.get(f"{prefix}.wave_i16")
    audio = empty_audio() if wave is None else wave.numpy().astype(np.float32) / 32768
    rate = 0 if wave is None else int(file[f"{prefix}.sample_rate"])
    return AVClip(file[f"{prefix}.frames"].numpy(), float(file[f"{prefix}.fps"]), audio, rate)


@pytest.fixture(scope="module")
def network():
    with torch.device("meta"):
        made = Synchformer(FULL)
    return fill(made, seed=golden("afeat").metadata["SEED"]).eval().requires_grad_(False)


class Trace:
    """Inputs and outputs of named modules in one forward."""

    def __init__(self, network, **names):
        self.seen = {}
        self.handles = [
            network.get_submodule(name).register_forward_hook(self._keep(key)) for key, name in names.items()
        ]

    def _keep(self, key):
        def hook(_, inputs, output):
            self.seen.update({f"{key}.input": inputs[0], key: output})

        return hook

    def __enter__(self):
        return self.seen

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()


def test_the_network_has_the_published_tensors():
    with torch.device("meta"):
        state = Synchformer(FULL).state_dict()
    published = json.loads(golden_path("upstream/manifest_synchformer.json").read_text(encoding="utf-8"))
    assert {name: list(tensor.shape) for name, tensor in state.items()} == published
    assert sum(tensor.numel() for tensor in state.values()) == 237_460_245


def test_sizes_follow_from_the_published_ones():
    assert (FULL.tubes, FULL.patches, FULL.audio_bands, FULL.audio_steps, FULL.fusion_tokens) == (8, 196, 12, 6, 198)
    assert (FULL.segment_samples, FULL.segment_hop_samples, FULL.spectrogram_frames) == (10_240, 5_120, 65)
    lengths = {0.3: 1, 0.64: 1, 2.0: 5, 4.0: 11, 5.0: 14, 8.0: 24, 10.0: 30}
    assert {seconds: FULL.count_segments(int(25 * seconds)) for seconds in lengths} == lengths


def test_audio_vectors(network):
    file = golden("afeat")
    names = {"layer0": "encoder.layer.0", "norm": "layernorm"}
    with Trace(network.afeat_extractor.ast, **names) as seen, torch.inference_mode():
        vectors = network.encode_audio(file["mel"][0])
    assert largest_difference(vectors, file["afeat"][0]) <= TOLERANCE
    for key, wanted in (("layer0.input", "a_embed"), ("layer0", "a_layer0"), ("norm", "a_final_norm")):
        assert largest_difference(seen[key][0, file["tok_idx"]], file[f"trace.{wanted}"]) <= TOLERANCE


def test_video_vectors(network):
    file = golden("vfeat")
    frames = normalise_frames(file["frames_lr"].repeat_interleave(4, dim=2).repeat_interleave(4, dim=3))
    names = {"first": "blocks.0", "last": "blocks.11"}
    with Trace(network.vfeat_extractor, **names) as seen, torch.inference_mode():
        vectors = network.encode_video(torch.stack(cut_frames(frames, FULL)))
    assert largest_difference(vectors, file["vfeat"][0]) <= TOLERANCE
    for key, wanted in (("first.input", "v_embed"), ("first", "v_block0"), ("last", "v_block11")):
        assert largest_difference(seen[key][0, file["tok_idx"]], file[f"trace.{wanted}"]) <= TOLERANCE


def test_logits(network):
    file = golden("logits")
    with Trace(network.transformer, block0="blocks.0", norm="ln_f") as seen, torch.inference_mode():
        logits = network.fuse(file["v"].float(), file["a"].float())
    assert largest_difference(logits, file["logits"]) <= TOLERANCE
    for key, wanted in (("block0.input", "t_embed"), ("block0", "t_block0"), ("norm", "t_ln_f")):
        assert largest_difference(seen[key][0, file["tok_idx"]], file[f"trace.{wanted}"]) <= TOLERANCE


def test_mel_spectrograms():
    file = golden("mel")
    mel = mel_segments(file["wave_i16"].float() / 32768, FULL)
    assert largest_difference(mel, file["mel"]) <= TOLERANCE
    assert largest_difference(mel[..., -1], torch.full_like(mel[..., -1], 0.46703)) <= TOLERANCE  # the added column


def test_frames():
    file = golden("video_prep")
    cases = [name.partition(".")[0] for name in file.names if name.endswith(".out_u8")]
    assert len(cases) >= 2
    for case in cases:
        num_frames = int(FULL.fps * float(file[f"{case}.max_length_s"]))
        frames = prepare_frames(golden_clip(file, case), num_frames, FULL)
        assert torch.equal(frames, file[f"{case}.out_u8"]), case
        normal = normalise_frames(frames)[..., ::8, ::8]
        assert largest_difference(normal, file[f"{case}.out_f32_s8"]) <= SCORE_TOLERANCE, case


def test_frame_rates():
    file = golden("video_prep")
    cases = [name for name in file.names if name.startswith("fpsmap.") and not name.endswith(".no_duration")]
    assert cases
    for case in cases:
        num_frames, rate = case.removeprefix("fpsmap.").split("@")
        numerator, _, denominator = rate.partition("_")
        indices = frame_indices(int(num_frames), int(numerator) / int(denominator or 1), FULL.fps)
        assert indices.tolist() == file[case].tolist(), case
        older = file[f"{case}.no_duration"].tolist()  # an older ffmpeg drops the end, and changes nothing before it
        assert indices[: len(older)].tolist() == older, case


def test_scores_from_logits():
    file = golden("score")
    grid = offset_grid(FULL.num_offsets, FULL.max_offset_s)
    assert torch.equal(grid, file["grid"])
    mixed = []
    for count in sorted(int(name[1:].split(".")[0]) for name in file.names if name.endswith(".logits")):
        logits, right, released = (file[f"S{count}.{key}"] for key in ("logits", "score", "score_upstream_batched"))
        assert torch.equal(window_indices(count, FULL.num_segments), file[f"S{count}.windows"])
        assert largest_difference(desync(logits, grid), right) <= SCORE_TOLERANCE
        assert largest_difference(desync_as_released(logits, grid), released) <= SCORE_TOLERANCE
        if largest_difference(right, released) > SCORE_TOLERANCE:
            mixed.append(count)
            assert largest_difference(desync(logits, grid), released) > SCORE_TOLERANCE
    assert mixed
    assert min(mixed) > FULL.num_segments


@pytest.mark.slow
def test_clips_from_end_to_end(network):
    file = golden("e2e")
    clips = [golden_clip(file, name) for name in "AB"]
    count = FULL.count_segments(int(FULL.fps * float(file["max_length_s"])))
    waves = torch.stack([prepare_waveform(clip, FULL.samples_of(count), FULL) for clip in clips])
    assert largest_difference(waves, file["audio_16k"]) <= 1e-5
    assert largest_difference(mel_segments(waves, FULL), file["mel"]) <= TOLERANCE
    logits = torch.stack(window_logits(network, clips, [count] * len(clips)))
    assert largest_difference(logits, file["logits"]) <= TOLERANCE
    assert torch.equal(desync(logits, offset_grid(FULL.num_offsets, FULL.max_offset_s)), file["score"])
