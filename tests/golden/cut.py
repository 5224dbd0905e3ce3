"""Cut the published golden files to the compact ones of this folder: `python tests/golden/cut.py PUBLISHED_FOLDER`.

Every cut keeps some published tensors, or some of their first rows; nothing is computed anew. `README.md` lists the
cuts. Running the script again on the same published files gives the same tensors and metadata; only the order of the
metadata in a safetensors file varies.
"""

from __future__ import annotations

import io
import json
import lzma
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save

HERE = Path(__file__).parent
XZ = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 2, "lp": 2, "pb": 2}]  # for values of 4 bytes
Tensors = dict[str, torch.Tensor]

SYNC, VIDEOALIGN = "synchformer_imagebind", "videoalign_audiobox"
WHOLE = (
    "model/position_ids.safetensors",
    "model/euler_sampler.safetensors",
    "model/joint_dit_vanilla.safetensors",
    "media/distances.npz",
    "media/distances.json",
    "media/fvd_frames.npz",
    "media/fvd_frames.json",
    "media/window_scores.npz",
    "media/window_scores.json",
    "ranking/rewards.csv",
    "ranking/pairs_micro.csv",
    "ranking/pairs_macro.csv",
    "ranking/pairs_micro_generated_only.csv",
    "ranking/pairs_macro_generated_only.csv",
    "nft/advantages.csv",
    "nft/advantages.json",
    "nft/advantages_constant_audio.csv",
    "nft/advantages_release_fallback.csv",
    "nft/gradient_surgery.safetensors",
    "nft/old_policy.json",
    "nft/region_weights.safetensors",
    "nft/shared_attention_surgery_derived.safetensors",
    "nft/surgery_schedule.json",
    "nft/local_dpo_loss.safetensors",
    f"{SYNC}/ib_reduced.safetensors",
    f"{SYNC}/ib_huge.safetensors",
    f"{SYNC}/sync_vfeat.safetensors",
    "upstream/manifest_audiobox.json",
    "upstream/manifest_imagebind_huge.json",
    "upstream/manifest_synchformer.json",
    "upstream/manifest_videoreward_4_45.json",
)


def same_weights(tensors: Tensors) -> Tensors:
    """Leave out weights that `joint_dit_vanilla` also has."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("weights.")}


def cases(*prefixes: str) -> Callable[[Tensors], Tensors]:
    """Keep the tensors whose name begins with one of these."""
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if name.startswith(prefixes)}


def without(*names: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if name not in names}


def first(count: int, *names: str) -> Callable[[Tensors], Tensors]:
    """Keep the first rows of these tensors (of all where none is named)."""
    return lambda tensors: {
        name: tensor[:count] if not names or name in names else tensor for name, tensor in tensors.items()
    }


def every_eighth_pixel(tensors: Tensors) -> Tensors:
    """Keep the wide clip, each second pixel of its crops (published at each fourth) and no whole crop."""
    kept = cases("land.", "frame_land.", "frame_down.", "table.")(tensors)
    kept = {name: tensor for name, tensor in kept.items() if ".out_full." not in name}
    kept["land.out_stride8"] = kept.pop("land.out_stride4")[..., ::2, ::2]
    return kept


def first_frames(tensors: Tensors) -> Tensors:
    """Keep two cases with the first two frames of their output, and ask for no more."""
    kept = cases("land24", "down16", "fpsmap")(tensors)
    for case in ("land24", "down16"):
        kept |= {f"{case}.{name}": kept[f"{case}.{name}"][:2] for name in ("out_u8", "out_f32_s8")}
        kept[f"{case}.max_length_s"] = torch.full_like(kept[f"{case}.max_length_s"], 2 / 25)
    return kept


def fewer_pixels(tensors: Tensors) -> Tensors:
    """Keep each third row of pixels, and the resized frames of the smallest case alone."""
    kept = {name: tensor for name, tensor in tensors.items() if ".resized_" not in name or name.startswith("F3.")}
    return {name: tensor[::3] if ".pixel_rows" in name else tensor for name, tensor in kept.items()}


TENSORS: dict[str, Callable[[Tensors], Tensors]] = {
    "model/joint_dit_interpolate": same_weights,
    "model/joint_dit_interleave": same_weights,
    "media/audio_mel": cases("case0.", "case4.", "case8.", "two_channel.", "mel_filterbank"),
    "nft/nft_loss": cases("case1.", "case3.", "case7.", "case10."),
    "nft/omninft_loss": cases("case1.", "case2."),
    f"{SYNC}/sync_logits": first(1, "v", "a", "logits"),
    f"{SYNC}/sync_mel": first(1),
    f"{SYNC}/sync_video_prep": first_frames,
    f"{SYNC}/sync_e2e": without("vfeat", "afeat"),
    f"{SYNC}/ib_audio_frontend": cases("overlap_stereo.", "short.", "javis2.", "ranges_table."),
    f"{SYNC}/ib_video_frontend": every_eighth_pixel,
    f"{VIDEOALIGN}/va_cases": without("B.pixel_values_videos", "C.pixel_values_videos"),
    f"{VIDEOALIGN}/va_frontend": fewer_pixels,
    f"{VIDEOALIGN}/va_frontend_F3_full": lambda tensors: {"pixel_values_videos": tensors["pixel_values_videos"][:64]},
    f"{VIDEOALIGN}/va_weights": first(1),
    f"{VIDEOALIGN}/va_peft_model_pth": first(1),
    f"{VIDEOALIGN}/va_peft_non_lora_state_dict": first(1),
}
CASES_IN_METADATA = ("nft/nft_loss", "nft/omninft_loss")  # a setting per case; tests go through them
SAME_WEIGHTS = ("model/joint_dit_interpolate", "model/joint_dit_interleave")
VANILLA = "model/joint_dit_vanilla.safetensors"
AV_ALIGN_CASES = (2,)


def cut_safetensors(path: Path, name: str) -> bytes:
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in sorted(file.keys())}
        metadata = dict(sorted((file.metadata() or {}).items()))
    if name in SAME_WEIGHTS:
        with safe_open(path.parents[1] / VANILLA, framework="pt") as source:
            weights = [key for key in tensors if key.startswith("weights.")]
            assert all(torch.equal(tensors[key], source.get_tensor(key)) for key in weights)
        metadata["weights_of"] = VANILLA
    kept = {key: tensor.contiguous() for key, tensor in TENSORS[name](tensors).items()}
    if name in CASES_IN_METADATA:
        present = {key.partition(".")[0] for key in kept}
        settings = json.loads(metadata["cases"])
        metadata["cases"] = json.dumps({case: settings[case] for case in settings if case in present})
    return save(kept, metadata)


def cut_av_align(folder: Path) -> Iterable[tuple[str, bytes]]:
    """Keep the case with a score above 0 at another rate than 16 kHz, as case 0, and all lists of peaks."""
    table: dict[str, Any] = json.loads((folder / "av_align.json").read_text(encoding="utf-8"))
    table["cases"] = [table["cases"][number] for number in AV_ALIGN_CASES]
    yield "media/av_align.json", json.dumps(table).encode()
    arrays = np.load(folder / "av_align.npz")
    content = io.BytesIO()
    kept = {
        f"case{index}.{key.partition('.')[2]}": arrays[key]
        for index, number in enumerate(AV_ALIGN_CASES)
        for key in arrays.files
        if key.startswith(f"case{number}.") and not key.endswith("onset_envelope")
    }
    np.savez(content, **kept)
    yield "media/av_align.npz", content.getvalue()


def cut_all(published: Path) -> Iterable[tuple[str, bytes]]:
    for name in WHOLE:
        source = published / ".." / name if name.startswith("upstream/") else published / name
        yield name, source.read_bytes()
    for name in TENSORS:
        yield f"{name}.safetensors", cut_safetensors(published / f"{name}.safetensors", name)
    yield from cut_av_align(published / "media")


def main(published: Path) -> None:
    for name, content in cut_all(published):
        path = HERE / f"{name}.xz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(lzma.compress(content, lzma.FORMAT_XZ, filters=XZ))
        print(f"{path.stat().st_size:>9} {name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
