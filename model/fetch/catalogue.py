"""The catalogue of published weights: repositories, addresses, revisions, hashes and licence of each component.

Revisions and hashes are those on which public manifests of several projects agree. None means that no such agreement
was found: `model.fetch` then fetches the newest revision, or the content of the address, and records it in the lock
file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class HubRepo:
    """Files of one model repository of the Hugging Face hub."""

    name: str  # owner/name
    include: tuple[str, ...]  # paths in the repository, or fnmatch patterns of them
    revision: str | None = None  # a commit, which fixes the content of every file
    sha256: Mapping[str, str] = field(default_factory=dict)  # by path; for mirrors without commits

    @property
    def folder(self) -> str:
        """The files' folder in the output folder, named as in upstream's checkpoints folder."""
        return self.name.split("/")[-1]

    @property
    def destinations(self) -> tuple[str, ...]:
        return tuple(f"{self.folder}/{path}" for path in self.include)

    @property
    def description(self) -> str:
        return f"{self.name} at {self.revision or 'its newest revision'}"


@dataclass(frozen=True, kw_only=True)
class WebFile:
    """One file of a plain web server, which is asked for the size if none is published."""

    name: str  # the address, whose last part names the file
    size: int | None = None
    sha256: str | None = None
    revision: None = None

    @property
    def file_name(self) -> str:
        return self.name.split("/")[-1]

    @property
    def destinations(self) -> tuple[str]:
        return (self.file_name,)

    @property
    def description(self) -> str:
        return self.name


@dataclass(frozen=True, kw_only=True)
class PythonText(WebFile):
    """A text that is published only as a constant of a Python file. Size and hash are those of the text in UTF-8."""

    constant: str
    python_size: int  # of the file at the address, which is parsed and never run
    destination: str  # of the text, in the output folder

    @property
    def destinations(self) -> tuple[str]:
        return (self.destination,)

    @property
    def description(self) -> str:
        return f"the text {self.constant} in {self.name}"


Source = HubRepo | WebFile


@dataclass(frozen=True, kw_only=True)
class Component:
    """A set of weights that a user fetches by name."""

    purpose: str
    licence: str
    sources: tuple[Source, ...]
    non_commercial: bool = False


WAN = "Wan-AI/Wan2.1-T2V-1.3B"
WAN_REVISION = "37ec512624d61f7aa208f7ea8140a131f93afc9a"

# Files of a model that transformers reads, in repositories older than safetensors.
TRANSFORMERS_FILES = (
    "config.json",
    "merges.txt",
    "preprocessor_config.json",
    "pytorch_model.bin",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)

GENERATION = ("transformer", "video_codec", "text_encoder", "audio_codec")

SOURCES: Mapping[str, Component] = {
    "transformer": Component(
        purpose="the joint audio-video network with its LoRA",
        licence="MIT (weights), Apache-2.0 (code)",
        sources=(HubRepo(name="JavisVerse/JavisDiT-v1.0-jav", include=("model/*", "lora/*")),),
    ),
    "video_codec": Component(
        purpose="the Wan2.1 video autoencoder",
        licence="Apache-2.0",
        sources=(
            HubRepo(
                name=WAN,
                revision=WAN_REVISION,
                include=("Wan2.1_VAE.pth",),
                sha256={"Wan2.1_VAE.pth": "38071ab59bd94681c686fa51d75a1968f64e470262043be31f7a094e442fd981"},
            ),
        ),
    ),
    "text_encoder": Component(
        purpose="the UMT5-XXL encoder and its tokenizer",
        licence="Apache-2.0",
        sources=(
            HubRepo(
                name=WAN,
                revision=WAN_REVISION,
                include=("models_t5_umt5-xxl-enc-bf16.pth", "google/umt5-xxl/*"),
                sha256={
                    "models_t5_umt5-xxl-enc-bf16.pth": (
                        "7cace0da2b446bbbbc57d031ab6cf163a3d59b366da94e5afe36745b746fd81d"
                    ),
                    "google/umt5-xxl/special_tokens_map.json": (
                        "7b8a9f5040adb67b5805abdfd42c1f8d0f3d0e711f10726580eb3789cd0ad61d"
                    ),
                    "google/umt5-xxl/spiece.model": "e3909a67b780650b35cf529ac782ad2b6b26e6d1f849d3fbb6a872905f452458",
                    "google/umt5-xxl/tokenizer.json": (
                        "6e197b4d3dbd71da14b4eb255f4fa91c9c1f2068b20a2de2472967ca3d22602b"
                    ),
                    "google/umt5-xxl/tokenizer_config.json": (
                        "ed9a3a8b0faa71a70a32847e0435fe036e6e112d4df4edb7bb48a921e344dc05"
                    ),
                },
            ),
        ),
    ),
    "audio_codec": Component(
        purpose="the mel autoencoder and vocoder of AudioLDM2",
        licence="CC BY-NC-SA 4.0",
        non_commercial=True,
        sources=(
            HubRepo(
                name="cvssp/audioldm2",
                revision="c8e7e189d324425c05c4c2f81214041ef4107983",
                include=(
                    "vae/config.json",
                    "vae/diffusion_pytorch_model.safetensors",
                    "vocoder/config.json",
                    "vocoder/model.safetensors",
                ),
            ),
        ),
    ),
    "wan_base": Component(
        purpose="the text-to-video network that training stage 1 starts from; generation does not need it",
        licence="Apache-2.0",
        sources=(
            HubRepo(
                name=WAN,
                revision=WAN_REVISION,
                include=("config.json", "diffusion_pytorch_model.safetensors"),
                sha256={
                    "config.json": "ab37994c43740513f94b3ba6233a784035a67b43c8cde83c8f31aa90468c67ce",
                    "diffusion_pytorch_model.safetensors": (
                        "96b6b242ca1c2f24e9d02cd6596066fab6d310e2d7538f33ae267cb18d957e8f"
                    ),
                },
            ),
        ),
    ),
    "audiobox": Component(
        purpose="reward: audio aesthetics",
        licence="CC BY 4.0",
        sources=(
            HubRepo(
                name="facebook/audiobox-aesthetics",
                revision="9b1dd8e5df9af7216e836a98974fe3b82c56ded6",
                include=("config.json", "model.safetensors"),
                sha256={"model.safetensors": "a5a3c2412649cc2384ec525ffd5180ce6c4778f43bed6108e0a1303de04d014e"},
            ),
        ),
    ),
    "videoalign": Component(
        purpose="reward: visual quality, motion quality and text alignment",
        licence="Apache-2.0 (weights), MIT (evaluation text)",
        sources=(
            HubRepo(
                name="KwaiVGI/VideoReward",
                revision="4f26600130683e6f1de9f5d463887f28e8ef995c",
                include=("model_config.json", "checkpoint-11352/model.pth", "checkpoint-11352/tokenizer/*"),
                sha256={
                    "checkpoint-11352/model.pth": "48375908e6112de9f0248402db156a23b480709a6960b091c598c6f4c88d21b9",
                    "checkpoint-11352/tokenizer/tokenizer.json": (
                        "a05e80818b958b49531b8e1f758c4ae65f090fdec80e6d8408963f70ae3f737d"
                    ),
                },
            ),
            PythonText(
                name=(
                    "https://raw.githubusercontent.com/KwaiVGI/VideoAlign/219ab9db64c045e5181a2202d11f686439351292/"
                    "prompt_template.py"
                ),
                constant="DETAILED_PROMPT_WITH_SPECIAL_TOKEN",
                python_size=10_760,
                destination="VideoReward/prompt_template.txt",
                size=3_997,
                sha256="fdb6309bac618dd0c8b1b589d3a0970a974f7856eecbb355a190b2dce54af700",
            ),
        ),
    ),
    "imagebind": Component(
        purpose="reward: agreement of video, audio and text",
        licence="CC BY-NC-SA 4.0 (weights), MIT (CLIP's vocabulary)",
        non_commercial=True,
        sources=(
            WebFile(
                name="https://dl.fbaipublicfiles.com/imagebind/imagebind_huge.pth",
                size=4_803_584_173,
                sha256="d6f6c22bedcc90708448d5d2fbb7b2db9c73f505dc89bd0b2e09b23af1b62157",
            ),
            WebFile(
                name="https://github.com/openai/CLIP/raw/main/clip/bpe_simple_vocab_16e6.txt.gz",
                size=1_356_917,
                sha256="924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a",
            ),
        ),
    ),
    "synchformer": Component(
        purpose="reward: audio-video synchrony",
        licence="none of its own; parts derive from CC BY-NC 4.0 code, and its distributor's weights are CC BY-NC 4.0",
        non_commercial=True,
        sources=(
            WebFile(
                name="https://github.com/hkchengrex/MMAudio/releases/download/v0.1/synchformer_state_dict.pth",
                size=950_058_171,
                sha256="8aff082f2df5c3bc52759db0c865c7ee772ae6400b860d1b7e90413f2defb67c",
            ),
        ),
    ),
    "i3d": Component(
        purpose="evaluation: FVD and KVD",
        licence="none stated for the file; MIT (its space), Apache-2.0 (DeepMind's weights that it was converted from)",
        sources=(
            WebFile(
                name=(
                    "https://huggingface.co/spaces/LanguageBind/Open-Sora-Plan-v1.0.0/resolve/"
                    "810fa8c4bdb3a4c8eec9bd57375c29bde6fb46de/opensora/eval/fvd/videogpt/i3d_pretrained_400.pt"
                ),
            ),
        ),
    ),
    "audioclip": Component(
        purpose="evaluation: FAD as JavisBench defines it",
        licence="MIT (its repository)",
        sources=(
            WebFile(
                name="https://github.com/AndreyGuzhov/AudioCLIP/releases/download/v0.1/AudioCLIP-Full-Training.pt",
                size=537_302_068,
                sha256="2441d35b353352c8b1bbfb8f7c687f46314c3d2909e940eaf763b8c17f632c44",
            ),
        ),
    ),
    "clip": Component(
        purpose="evaluation: CLIP score",
        licence="none stated for the weights, MIT (code)",
        sources=(
            HubRepo(
                name="openai/clip-vit-base-patch32",
                revision="3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
                include=TRANSFORMERS_FILES,
                sha256={
                    "config.json": "b575ef3c36f2a057fa19e221650105052d61cc9c1a972ec15019c6261ec98770",
                    "merges.txt": "f526393189112391ce6f9795d4695f704121ce452c3aad1f5335cc41337eba85",
                    "preprocessor_config.json": "910e70b3956ac9879ebc90b22fb3bc8a75b6a0677814500101a4c072bd7857bd",
                    "pytorch_model.bin": "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f",
                    "special_tokens_map.json": "f8c0d6c39aee3f8431078ef6646567b0aba7f2246e9c54b8b99d55c22b707cbf",
                    "tokenizer.json": "b556ac8c99757ffb677208af34bc8c6721572114111a6e0aaf5fa69ff0b8d842",
                    "tokenizer_config.json": "34b7336e4bee12e0a9730eaf5189f582ef3c3eea5027f65730e5717256755aad",
                    "vocab.json": "5047b556ce86ccaf6aa22b3ffccfc52d391ea4accdab9c2f2407da5b742d4363",
                },
            ),
        ),
    ),
    "clap": Component(
        purpose="evaluation: CLAP score, and FAD on CLAP's embeddings",
        licence="Apache-2.0",
        sources=(
            HubRepo(
                name="laion/clap-htsat-unfused",
                revision="8fa0f1c6d0433df6e97c127f64b2a1d6c0dcda8a",
                include=TRANSFORMERS_FILES,
                sha256={
                    "config.json": "9efb9557bc804f2ca6e394486af2e45dfed0b18554909735a99c6220b84e4288",
                    "merges.txt": "fe36cab26d4f4421ed725e10a2e9ddb7f799449c603a96e7f29b5a3c82a95862",
                    "preprocessor_config.json": "9739f58296aa6f9ac18008fd0150fb2649bc554985fbde86d0a4041c882ac753",
                    "pytorch_model.bin": "1cd3c601bc4afe0fa87be3de4c13dd2cfadd249fac1e29acf74a9b296c3219bb",
                    "special_tokens_map.json": "06e405a36dfe4b9604f484f6a1e619af1a7f7d09e34a8555eb0b77b66318067f",
                    "tokenizer.json": "77ef92283d67f0d97e1454909a964afcbfa2019f0fb9f18f8e88d5c25c3ba729",
                    "tokenizer_config.json": "377f91458f7729a4574a84c77bdce67dbc3c58c1a345a29bbf8c4eb1307948a3",
                    "vocab.json": "ed19656ea1707df69134c4af35c8ceda2cc9860bf2c3495026153a133670ab5e",
                },
            ),
        ),
    ),
    "cavp": Component(
        purpose="evaluation: CAVP score",
        licence="MIT",
        sources=(
            HubRepo(
                name="SimianLuo/Diff-Foley",
                revision="b17ddbe76e6d42f4b4135eeb443b1c1644267e3e",
                include=("diff_foley_ckpt/cavp_epoch66.ckpt",),
                sha256={
                    "diff_foley_ckpt/cavp_epoch66.ckpt": (
                        "3472c2217a9481f530a96e32611c9e4611766f10b7f0d185a1ce35be7b7f9c80"
                    )
                },
            ),
        ),
    ),
}

# Content of `pipeline.json` beside the fetched components: their paths, and the defaults of JointAVPipeline.
PIPELINE: Mapping[str, Mapping[str, Any]] = {
    "components": {
        "transformer": "JavisDiT-v1.0-jav",
        "video_codec": "Wan2.1-T2V-1.3B/Wan2.1_VAE.pth",
        "audio_codec": "audioldm2",
        "text_encoder": "Wan2.1-T2V-1.3B",
    },
    "defaults": {
        "num_frames": 81,
        "height": 240,
        "width": 432,
        "fps": 16.0,
        "sample_rate": 16_000,
        "num_inference_steps": 50,
        "guidance_scale": 5.0,
        "shift_scale": 1.0,
        "training_shift_scale": 5.0,
        "negative_prompt": (
            "low quality, blurry, overexposed, washed-out colours, frozen picture, flicker, compression artefacts, "
            "subtitles, watermark, deformed hands and faces, extra limbs, cluttered background; poor recording, "
            "noise, hum, distortion, clipping, crackle, muffled or harsh sound, excessive reverb, abrupt cuts"
        ),
    },
}
