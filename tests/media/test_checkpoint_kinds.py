"""What a checkpoint is taken for by the names of its tensors."""

import pytest
import torch

from evaluation.audioclip.config import AudioClipConfig
from evaluation.audioclip.loading import published_state
from evaluation.audioclip.network import AudioHead
from evaluation.cavp import CavpConfig
from evaluation.cavp.network import Cavp
from evaluation.i3d.config import I3DConfig
from evaluation.i3d.network import I3D
from media.checkpoint_kinds import looks_like


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
