"""AudioBox-Aesthetics at full size against numbers of the published classes (docs/upstream/audiobox.md, section 10)."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from core.state_files import fill_module
from rewards.audiobox import AudioBoxReward, windows
from rewards.audiobox.checkpoint import published_name
from rewards.audiobox.config import AXES, AudioBoxConfig
from rewards.audiobox.encoder import count_valid_frames, layer_results
from rewards.audiobox.network import AestheticsNetwork
from tests.golden_files import Golden, golden_path
from tests.rewards.audiobox.audiobox_samples import clip_of
from tests.rewards.procedural import procedural_tensor

FOLDER = "videoalign_audiobox"


class RecordingReward(AudioBoxReward):
    """Keeps what it predicted last."""

    def predict(self, table: windows.Windows) -> torch.Tensor:
        self.windows, self.predictions = table, super().predict(table)
        return self.predictions


class Cases:
    """The golden clips that are there, the network that they were scored with, and its answers."""

    def __init__(self) -> None:
        self.facts = json.loads(golden_path(f"{FOLDER}/ab_cases.json").read_text(encoding="utf-8"))
        self.golden = Golden(f"{FOLDER}/ab_cases.safetensors")
        self.tolerances = self.facts["tolerances"]
        self.clips = {}
        for index, clip in enumerate(self.facts["clips"]):
            pcm = self.golden.get(f"{clip['name'].partition('pad')[0]}.pcm_s16")  # W1pad8 is W1, zero-padded
            if pcm is not None:
                audio = F.pad(pcm.float() / 32768, (0, clip["samples"] - pcm.shape[1])).numpy()
                self.clips[index] = clip_of(audio, clip["sample_rate"])
        settings = {**self.facts["constructor"], "target_transform": self.facts["target_transform"]}
        self.reward = RecordingReward(procedural_network(AudioBoxConfig(**settings), self.facts["seed"]))
        self.scores = self.reward.score(list(self.clips.values()), [])
        self.windows, self.predictions = self.reward.windows, self.reward.predictions
        self.rows = torch.isin(self.golden["window_clip"], torch.tensor(list(self.clips)))  # of the window table

    def number(self, name: str) -> int:
        return next(index for index, clip in enumerate(self.facts["clips"]) if clip["name"] == name)

    def first_window(self, name: str) -> int:
        return int((self.windows.owner == list(self.clips).index(self.number(name))).nonzero()[0])


def procedural_network(config: AudioBoxConfig, seed: int) -> AestheticsNetwork:
    with torch.device("meta"):
        network = AestheticsNetwork(config)
    names = {name: published_name(name) for name in network.state_dict()}  # the rule goes by published names
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    fill_module(network, ((name, procedural_tensor(names[name], shapes[name], seed)) for name in names), "procedural")
    return network.eval()


@pytest.fixture(scope="module")
def cases() -> Cases:
    return Cases()


def largest_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    assert actual.shape == expected.shape
    return float((actual.double() - expected.double()).abs().max())


def test_the_full_size_network_has_the_names_and_shapes_of_the_published_weights():
    path = golden_path("upstream/manifest_audiobox.json")
    with torch.device("meta"):
        network = AestheticsNetwork()
    ours = {published_name(name): list(tensor.shape) for name, tensor in network.state_dict().items()}
    assert ours == json.loads(path.read_text(encoding="utf-8"))["tensors"]


def test_sound_is_resampled_and_averaged_as_published(cases):
    for index, clip in cases.clips.items():
        facts = cases.facts["clips"][index]
        sound = windows.to_mono(clip.audio, clip.sample_rate)
        assert len(sound) == facts["samples_16k"]
        expected = cases.golden.get(f"{facts['name']}.mono16k")
        if expected is not None:
            assert largest_error(sound, expected[0]) <= cases.tolerances["mono16k_abs"]


def test_windows_and_their_weights_are_as_published(cases):
    owners = torch.tensor(list(cases.clips))[cases.windows.owner]
    assert owners.equal(cases.golden["window_clip"][cases.rows])
    assert cases.windows.num_valid.equal(cases.golden["window_valid_samples"][cases.rows])
    weights = cases.windows.num_valid.double() / windows.WINDOW_SAMPLES
    assert weights.equal(cases.golden["window_weight"][cases.rows])


def test_predictions_of_windows_are_as_published(cases):
    assert largest_error(cases.predictions, cases.golden["raw"][cases.rows]) <= cases.tolerances["raw_abs"]


def test_scores_of_clips_are_as_published(cases):
    axes = torch.stack([cases.scores[column] for column in AudioBoxReward.columns[1:]], dim=1)
    present = list(cases.clips)
    assert largest_error(axes, cases.golden["scores"][present]) <= cases.tolerances["scores_abs"]
    quality = cases.golden["audio_quality"][present]
    assert largest_error(cases.scores["audio_quality"], quality) <= cases.tolerances["audio_quality_abs"]


def test_layers_frames_and_embeddings_are_as_published(cases):
    network, window = cases.reward.network, cases.first_window("W1")
    samples, num_valid = cases.windows.samples[window, None], cases.windows.num_valid[window, None]
    frames = int(count_valid_frames(network.config.wavlm, windows.WINDOW_SAMPLES, num_valid))
    assert (torch.arange(499) >= frames).equal(cases.golden["W1.frame_padding_mask"])
    with torch.inference_mode():
        embedding = network.embed(samples, num_valid)[0]
        results, _ = layer_results(network.wavlm, network.config.wavlm, samples, num_valid)
    assert largest_error(embedding, cases.golden["W1.pooled_embed"]) <= cases.tolerances["raw_abs"]
    expected = cases.golden.get("W1.hidden_rows")  # (13, 8, C)
    if expected is not None:
        index = cases.golden["W1.frame_index"]
        rows = torch.cat(results)[:, index[index < frames]]
        assert largest_error(rows, expected[:, index < frames]) <= cases.tolerances["hidden_rows_abs"]


def test_padding_and_its_mask_both_matter(cases):
    network, window = cases.reward.network, cases.first_window("W1")
    samples, num_valid = cases.windows.samples[window, None], cases.windows.num_valid[window, None]
    with torch.inference_mode():
        without_mask = network(samples, torch.tensor([windows.WINDOW_SAMPLES]))
        without_padding = network(samples[:, : int(num_valid)], num_valid)
    for name, wrong in (("mask", without_mask), ("padding", without_padding)):
        golden = cases.golden[f"neg.W1.raw_without_{name}"]
        assert largest_error(wrong, golden) <= cases.tolerances["raw_abs"]
        assert largest_error(cases.predictions[window, None], golden) > 0.1


def test_javisbench_scores_zero_padding_as_sound(cases, monkeypatch):
    monkeypatch.setattr(windows, "JAVISBENCH_LENGTH_S", 8.0)  # the length that the golden clip W1pad8 was made with
    released = AudioBoxReward(cases.reward.network, "javisbench")
    quality = released.score([cases.clips[cases.number("W1")]], [])["audio_quality"].double()
    expected = cases.golden["audio_quality"]
    assert abs(quality.item() - expected[cases.number("W1pad8")]) <= cases.tolerances["audio_quality_abs"]
    assert abs(quality.item() - expected[cases.number("W1")]) > 0.1


def test_the_published_package_agrees():
    """With weights and sounds of our own choice, where the package is installed."""
    aes = pytest.importorskip("audiobox_aesthetics.model.aes")
    config = AudioBoxConfig()
    theirs = aes.AesMultiOutput(proj_num_layer=config.proj_num_layer, proj_ln=config.proj_ln).eval()
    ours = procedural_network(config, seed=7)
    state = {name: procedural_tensor(name, tensor.shape, 7) for name, tensor in theirs.state_dict().items()}
    theirs.load_state_dict(state)
    sounds = [torch.randn(length, generator=torch.Generator().manual_seed(length)) * 0.1 for length in (20_000, 90_001)]
    table = windows.cut_windows(sounds)
    mask = torch.arange(windows.WINDOW_SAMPLES) < table.num_valid[:, None]
    with torch.inference_mode():
        expected = theirs({"wav": table.samples[:, None], "mask": mask[:, None]})
    assert largest_error(AudioBoxReward(ours).predict(table), torch.stack([expected[axis] for axis in AXES], 1)) <= 2e-5
