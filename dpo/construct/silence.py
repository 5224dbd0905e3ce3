"""Latents of digital silence, encoded once per length and stored beside the pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from core.atomic import atomic_path
from model.javisdit.pipeline import JointAVPipeline


def silence_latents(pipeline: JointAVPipeline, num_samples: int, folder: Path) -> np.ndarray:
    """Return the latents of `num_samples` silent samples, float16 (C, T, M), from `silence-<num_samples>.safetensors`.

    The file is written if it is not there. Like every clip's, the latents end in the codec's padding.
    """
    path = folder / f"silence-{num_samples}.safetensors"
    if not path.is_file():
        with torch.inference_mode():
            latents = pipeline.audio_codec.encode(torch.zeros(1, num_samples, device=pipeline.device))[0]
        with atomic_path(path) as temporary:
            save_file({"audio": latents.cpu().numpy().astype(np.float16)}, temporary)
    return load_file(path)["audio"]
