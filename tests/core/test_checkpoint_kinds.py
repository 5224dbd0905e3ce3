"""What a checkpoint is taken for by the names of its tensors."""

from __future__ import annotations

import pytest
import torch

from core.checkpoint_kinds import looks_like
from evaluation.judges.audioclip.config import AudioClipConfig
from evaluation.judges.audioclip.loading import published_state
from evaluation.judges.audioclip.network import AudioHead
from evaluation.judges.cavp import CavpConfig
from evaluation.judges.cavp.network import Cavp
from evaluation.judges.i3d.config import I3DConfig
from evaluation.judges.i3d.network import I3D


@pytest.mark.parametrize("wrapper", ["", "module."])
def test_cavp_with_and_without_its_wrapper(wrapper):
    with torch.device("meta"):
        names = Cavp(CavpConfig()).state_dict().keys()
    assert looks_like([wrapper + name for name in names]) == "CAVP"


def test_the_networks_of_frechet_distances():
    with torch.device("meta"):
        i3d, audioclip = I3D(I3DConfig()).state_dict(), published_state(AudioHead(AudioClipConfig()))
    assert looks_like(i3d) == "I3D"
    assert looks_like([*audioclip, "visual.conv1.weight", "logit_scale_ai"]) == "AudioCLIP"


def test_another_wrapped_model_is_told_by_its_wrapper():
    assert looks_like(["module.conv1.weight"]) == "a model that was saved inside a distributed wrapper"
