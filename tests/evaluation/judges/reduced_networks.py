"""A folder of weights for every metric: reduced networks of random weights as published, and the tiny rewards."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from evaluation.judges.cavp.config import CavpConfig
from evaluation.judges.cavp.loading import save_network as save_cavp
from evaluation.judges.cavp.network import Cavp
from evaluation.judges.i3d.config import I3DConfig
from evaluation.judges.i3d.loading import save_network as save_i3d
from evaluation.judges.i3d.network import I3D
from rewards.weights import PRESETS
from tests.evaluation.judges.reduced_contrastive import write_audioclip, write_clap_model, write_clip_model


def write_weights(folder: Path) -> Path:
    """What `evaluation.run --weights` takes; a network lies under its published name or that of its judge."""
    for preset in (PRESETS / "tiny").iterdir():
        shutil.copytree(preset, folder / preset.name)
    write_clip_model(folder / "clip-vit-base-patch32")
    write_clap_model(folder / "clap-htsat-unfused")
    write_audioclip(folder / "audioclip")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = I3D(I3DConfig(width=1 / 16, image_size=32))
        for parameter in network.parameters():
            if parameter.ndim > 1:  # else hardly anything comes out at the end
                torch.nn.init.kaiming_normal_(parameter)
        save_i3d(network, folder / "i3d")
        small = CavpConfig(embed_dim=16, image_size=32, video_width=4, video_blocks=(1, 1, 1, 1), audio_width=4)
        save_cavp(Cavp(small), folder / "cavp")
    return folder
