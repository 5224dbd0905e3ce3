"""The features of FVD: which pictures are looked at, the network in its published layout, and the judge."""

from __future__ import annotations

import hashlib
import json
import zlib

import numpy as np
import pytest
import torch
from torch import nn

from core.state_files import fill_module
from evaluation.judges.i3d import I3DJudge
from evaluation.judges.i3d.config import I3DConfig
from evaluation.judges.i3d.frames import fit_square, frame_indices, normalise_bytes, prepare_frames, released_bytes
from evaluation.judges.i3d.loading import save_network
from evaluation.judges.i3d.network import I3D, pad_same
from evaluation.statistics.distances import frechet_distance
from media import AVClip
from synthetic import render_clip, scene_from_seed
from tests.golden_files import golden_path

SMALL = I3DConfig(width=1 / 16, image_size=32)


def procedural(name, shape):
    """The weights of the golden logits: a tensor of this name and shape, from nothing else."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.int64)
    noise = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if noise.ndim == 1:
        return noise * 0.05 + 1 if name.endswith(("weight", "running_var")) else noise * 0.1
    return noise * (2 * noise.shape[0] / noise.numel()) ** 0.5


def network(config):
    with torch.device("meta"):
        model = I3D(config)
    fill_module(model, ((name, procedural(name, x.shape)) for name, x in model.state_dict().items()), "procedural")
    return model.eval()


def noise_clip(num_frames=33, height=32, width=48, seed=0):
    video = np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)
    return AVClip(video, 16.0, np.zeros((0, 0), np.float32), 0)


def grey_clip(level, num_frames=24, height=32, width=32):
    return AVClip(np.full((num_frames, height, width, 3), level, np.uint8), 16.0, np.zeros((0, 0), np.float32), 0)


@pytest.fixture(scope="module")
def small():
    return I3DJudge(network(SMALL))


def features(judge, *clips):
    return judge.measure(list(clips), [])["i3d"]


def test_golden_frame_indices():
    for case, expected in json.loads(golden_path("media/frame_indices.json").read_text()).items():
        num_frames, count = map(int, case.split("->"))
        assert frame_indices(num_frames, count).tolist() == expected


def test_golden_pictures():
    stored = np.load(golden_path("media/fvd_frames.npz"))
    for index, case in enumerate(json.loads(golden_path("media/fvd_frames.json").read_text())):
        if "crop_target" in case:
            given, expected = torch.from_numpy(stored["crop.bytes"]), stored["crop.i3d_input"]
            size = case["crop_target"]
        else:
            size = case["target"]
            given = released_bytes(fit_square(torch.from_numpy(stored[f"case{index}.frames"]), size))
            difference = given.int() - torch.from_numpy(stored[f"case{index}.bytes"]).int()
            assert difference.abs().max() <= 1
            given, expected = torch.from_numpy(stored[f"case{index}.bytes"]), stored[f"case{index}.i3d_input"]
        np.testing.assert_allclose(normalise_bytes(given, size).numpy(), expected, atol=1e-5)


def test_black_and_white_by_protocol():
    """The release takes [0, 1] for [-1, 1], so that its black is grey."""
    for protocol, black in (("correct", -1.0), ("javisbench", 127 / 127.5 - 1)):
        pictures = [prepare_frames(grey_clip(level), 32, protocol) for level in (0, 255)]
        assert [picture.shape for picture in pictures] == [(3, 24, 32, 32)] * 2
        torch.testing.assert_close(pictures[0], torch.full_like(pictures[0], black))
        torch.testing.assert_close(pictures[1], torch.ones_like(pictures[1]))


def test_pictures_are_fitted_with_black_around_and_the_odd_line_comes_last():
    wide = fit_square(torch.full((1, 21, 40, 3), 255, dtype=torch.uint8), 20)[0]  # 10.5 rows, truncated
    assert (wide[:, 5:15] > 0.999).all()
    assert (wide.sum(dim=(0, 2)) > 0).sum() == 10
    narrow = fit_square(torch.full((1, 40, 22, 3), 255, dtype=torch.uint8), 20)[0]  # 11 columns
    assert (narrow.sum(dim=(0, 1)) > 0).nonzero().flatten().tolist() == [*range(4, 15)]
    assert fit_square(torch.full((1, 1, 400, 3), 255, dtype=torch.uint8), 20).amax() > 0.999  # a line at least remains


def test_published_layout_and_golden_logits():
    """The full-size network: names and shapes of the published weights, and logits of the public port of it."""
    golden = json.loads(golden_path("media/i3d_procedural.json").read_text())
    model = network(I3DConfig())
    layout = json.dumps(sorted((name, list(tensor.shape)) for name, tensor in model.state_dict().items()))
    assert hashlib.sha256(layout.encode()).hexdigest() == golden["layout_sha256"]
    assert sum(parameter.numel() for parameter in model.parameters()) == golden["num_parameters"] == 12_697_264
    frame, row, column = torch.arange(17.0)[:, None, None], torch.arange(40.0)[:, None], torch.arange(36.0)
    planes = [torch.sin(0.05 * (c + 1) * column + 0.03 * row * (3 - c) + 0.4 * frame * (c + 1)) for c in range(3)]
    with torch.inference_mode():
        logits = model(torch.stack(planes)[None])[0]
    torch.testing.assert_close(logits, torch.tensor(golden["logits"]), atol=2e-4, rtol=0)  # they spread by 1.8


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "before", "after"),
    [
        (224, 7, 2, 2, 3),
        (223, 7, 2, 3, 3),
        (112, 3, 2, 0, 1),
        (7, 3, 1, 1, 1),
        (3, 2, 2, 0, 1),
        (6, 2, 2, 0, 0),
        (5, 1, 2, 0, 0),
    ],
)
def test_padding_is_that_of_tensorflow(size, kernel, stride, before, after):
    padded = pad_same(torch.ones(1, 1, 1, 1, size), (1, 1, kernel), (1, 1, stride)).flatten()
    assert padded.tolist() == [0.0] * before + [1.0] * size + [0.0] * after


def test_features_are_float32_rows_whatever_else_is_in_the_batch(small):
    clips = [noise_clip(seed=0), noise_clip(65, 48, 32, seed=1), noise_clip(1, seed=2)]
    together = features(small, *clips)
    assert (together.shape, together.dtype) == ((3, 400), torch.float32)
    alone = torch.cat([features(small, clip) for clip in clips])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-2
    assert features(small).shape == (0, 400)


def test_only_the_frames_it_names_are_looked_at(small):
    clip = noise_clip(65)
    looked_at = small.frames(clip.num_frames, clip.fps)
    assert len(looked_at) == 24
    video = np.zeros_like(clip.video)
    video[sorted(looked_at)] = clip.video[sorted(looked_at)]
    torch.testing.assert_close(features(small, AVClip(video, 16.0, clip.audio, 0)), features(small, clip))
    assert small.frames(10, 16.0) == set(range(10))


def test_protocols_have_other_features_and_say_so(small):
    released = I3DJudge(small.network, protocol="javisbench")
    assert (small.version, released.version) == ("1", "1+javisbench")
    assert (features(small, noise_clip()) - features(released, noise_clip())).abs().max() > 1e-2


def test_more_noise_on_bounce_is_further_away(small):
    clips = [render_clip(scene_from_seed(seed)) for seed in range(6)]
    real = features(small, *clips).numpy()
    rng = np.random.default_rng(0)
    distances = []
    for level in (0, 20, 80):
        videos = [np.clip(clip.video + level * rng.normal(size=clip.video.shape), 0, 255) for clip in clips]
        noisy = [AVClip(video.astype(np.uint8), 16.0, np.zeros((0, 0), np.float32), 0) for video in videos]
        distances.append(frechet_distance(real, features(small, *noisy).numpy()))
    assert distances[0] == pytest.approx(0, abs=1e-6)
    assert distances == sorted(distances)
    assert distances[1] > 1e-2


def test_a_saved_network_gives_the_same_features(small, tmp_path):
    save_network(small.network, tmp_path / "i3d")
    wanted = features(small, noise_clip())
    for path in (tmp_path, tmp_path / "i3d", tmp_path / "i3d" / "model.safetensors"):
        torch.testing.assert_close(features(I3DJudge.load(str(path)), noise_clip()), wanted)


def test_the_published_file_loads_with_and_without_counters_of_batches(small, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"width": SMALL.width, "image_size": SMALL.image_size}))
    state = small.network.state_dict()
    for kept in (state, {name: x for name, x in state.items() if not name.endswith("num_batches_tracked")}):
        torch.save(kept, tmp_path / "i3d_pretrained_400.pt")
        loaded = I3DJudge.load(str(tmp_path))
        torch.testing.assert_close(features(loaded, noise_clip()), features(small, noise_clip()))


def test_half_precision_gives_close_float32_features(small, tmp_path):
    save_network(small.network, tmp_path)
    half = features(I3DJudge.load(str(tmp_path), dtype="bfloat16"), noise_clip())
    wanted = features(small, noise_clip())
    assert half.dtype == torch.float32
    assert 0 < (half - wanted).abs().max() < 0.1 * wanted.std()


def test_weights_of_another_network_are_refused_by_name(small, tmp_path):
    state = dict(small.network.state_dict())
    state["head.weight"] = state.pop("Mixed_4c.b2b.conv3d.weight")
    state["logits.conv3d.bias"] = torch.zeros(600)  # of Kinetics-600
    torch.save(state, tmp_path / "i3d_pretrained_400.pt")
    (tmp_path / "config.json").write_text(json.dumps({"width": SMALL.width}))
    with pytest.raises(ValueError, match="does not fit I3D") as caught:
        I3DJudge.load(str(tmp_path))
    for part in ("1 missing (Mixed_4c.b2b.conv3d.weight)", "1 surplus (head.weight)", "(600,), not (400,)"):
        assert part in str(caught.value)


def test_weights_that_are_not_there_are_asked_for(tmp_path):
    with pytest.raises(ValueError, match=r"needs weights\. Give 'i3d_pretrained_400\.pt' or 'i3d_torchscript"):
        I3DJudge.load()
    with pytest.raises(ValueError, match="do not exist"):
        I3DJudge.load(str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="dtype is 'int8'"):
        I3DJudge(network(SMALL), dtype="int8")


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="width is 2"):
        I3DConfig(width=2)
    with pytest.raises(ValueError, match="image_size is 16"):
        I3DConfig(image_size=16)


class Scripted(nn.Module):
    """With the switches of the published TorchScript file, whose defaults are not what we need."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3, num_classes)

    def forward(self, x, rescale: bool = True, resize: bool = True, return_features: bool = False):
        if rescale:
            x = 2 * x / 255 - 1
        if resize:
            x = nn.functional.interpolate(x, size=[16, 224, 224])
        logits = self.head(x.mean(dim=[2, 3, 4]))
        return logits if return_features else logits.softmax(dim=1)


def test_a_torchscript_file_gives_its_logits(tmp_path):
    torch.manual_seed(0)
    module = Scripted(400)
    torch.jit.script(module).save(tmp_path / "i3d_torchscript.pt")
    judge = I3DJudge.load(str(tmp_path))
    expected = module.head(torch.full((1, 3), 2 * 51 / 255 - 1))
    torch.testing.assert_close(features(judge, grey_clip(51)), expected, atol=1e-5, rtol=0)
    assert judge.published == "i3d_pretrained_400.pt"


def test_a_torchscript_file_of_another_network_is_refused(tmp_path):
    torch.jit.script(Scripted(10)).save(tmp_path / "other.pt")
    judge = I3DJudge.load(str(tmp_path / "other.pt"))
    with pytest.raises(ValueError, match=r"a tensor \(1, 10\) for 1 videos, not 400 logits each"):
        features(judge, grey_clip(0))


def test_features_that_are_no_numbers_are_an_error():
    model = network(SMALL)
    model.logits["conv3d"].bias.data[7] = torch.inf
    with pytest.raises(ValueError, match="not finite for clip 0 of 2"):
        features(I3DJudge(model), grey_clip(0), grey_clip(9))
