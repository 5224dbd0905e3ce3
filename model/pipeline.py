"""Text to audio-video: the network, its codecs and its text encoder behind one call."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from media.clip import AVClip
from media.convert import convert_clip
from model.codecs import FrameGroupVideoCodec, MelAudioCodec
from model.flow import INFERENCE_SHIFT_SCALE, TRAINING_SHIFT_SCALE, euler_step, guide, sampling_timesteps
from model.latents import AVLatents
from model.presets import PRESETS, preset_path
from model.text import TextEmbeddings, TextEncoder
from model.transformer import JointDiT

PIPELINE_CONFIG_NAME = "pipeline.json"
ADAPTER_CONFIG_NAME = "adapter_config.json"
LATENT_FRAMES = 4  # video frames to one latent step, after the first
VIDEO_DOWNSAMPLING = 8


@dataclass(frozen=True)
class GenerationDefaults:
    """What a call uses where it does not say otherwise; part of the model's folder."""

    num_frames: int = 81
    height: int = 240
    width: int = 432
    fps: float = 16.0
    sample_rate: int = 16_000
    num_inference_steps: int = 50
    guidance_scale: float = 5.0
    shift_scale: float = INFERENCE_SHIFT_SCALE
    training_shift_scale: float = TRAINING_SHIFT_SCALE
    negative_prompt: str = ""

    @property
    def num_samples(self) -> int:
        return round(self.num_frames / self.fps * self.sample_rate)


@dataclass(frozen=True)
class Geometry:
    """Sizes of one request; latent sizes follow from them."""

    num_frames: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.num_frames % LATENT_FRAMES != 1:
            raise ValueError(f"num_frames is {self.num_frames}, the codec needs 4n + 1: use {self._nearest_frames}.")
        if self.height % (2 * VIDEO_DOWNSAMPLING) or self.width % (2 * VIDEO_DOWNSAMPLING):
            raise ValueError(f"{self.height}x{self.width} pixels do not split into patches: use multiples of 16.")

    @property
    def _nearest_frames(self) -> int:
        return max(self.num_frames - 1, 0) // LATENT_FRAMES * LATENT_FRAMES + 1

    @property
    def video_latent_size(self) -> tuple[int, int, int]:
        frames = (self.num_frames - 1) // LATENT_FRAMES + 1
        return frames, self.height // VIDEO_DOWNSAMPLING, self.width // VIDEO_DOWNSAMPLING


class JointAVPipeline:
    """Generates clips from prompts; also encodes text and clips as training needs them."""

    def __init__(
        self,
        transformer: JointDiT,
        video_codec: FrameGroupVideoCodec,
        audio_codec: MelAudioCodec,
        text_encoder: TextEncoder,
        defaults: GenerationDefaults,
        name_or_path: str = "",
    ) -> None:
        self.transformer = transformer.eval()
        self.video_codec = video_codec
        self.audio_codec = audio_codec
        self.text_encoder = text_encoder
        self.defaults = defaults
        self.name_or_path = name_or_path

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> "JointAVPipeline":
        """Loads a preset by name, a pipeline folder, or a peft adapter folder (its base with the adapter merged).

        Raises:
            ValueError: when the folder holds neither a pipeline nor an adapter.
        """
        transformer = load_transformer(name_or_path, dtype)
        folder = _base_folder(name_or_path)
        settings: dict[str, Any] = json.loads((folder / PIPELINE_CONFIG_NAME).read_text(encoding="utf-8"))
        pipeline = cls(
            transformer,
            FrameGroupVideoCodec.from_pretrained(folder / "video_codec"),
            MelAudioCodec.from_pretrained(folder / "audio_codec"),
            TextEncoder.from_pretrained(folder / "text_encoder", transformer.config.text_len),
            GenerationDefaults(**settings["defaults"]),
            str(name_or_path),
        )
        return pipeline.to(device)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Writes all parts into one folder; `dtype` casts the stored weights of the network and the codecs."""
        folder = Path(folder)
        self.transformer.save_pretrained(folder / "transformer", dtype)
        self.video_codec.save_pretrained(folder / "video_codec", dtype)
        self.audio_codec.save_pretrained(folder / "audio_codec", dtype)
        self.text_encoder.save_pretrained(folder / "text_encoder")
        settings = {"defaults": asdict(self.defaults)}
        (folder / PIPELINE_CONFIG_NAME).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    def to(self, device: str | torch.device) -> "JointAVPipeline":
        for module in (self.transformer, self.video_codec, self.audio_codec, self.text_encoder.model):
            module.to(device)
        return self

    @property
    def device(self) -> torch.device:
        return self.transformer.device

    @cached_property
    def model_id(self) -> str:
        """Twelve hex digits that change with any weight or setting of the network."""
        digest = hashlib.blake2b(repr(self.transformer.config).encode(), digest_size=6)
        for name, tensor in sorted(self.transformer.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().float().numpy().tobytes())
        return digest.hexdigest()

    def encode_text(self, prompts: Sequence[str]) -> TextEmbeddings:
        """Embeds prompts: float32 (B, L, D) with zeros on padding, and the mask."""
        return self.text_encoder(list(prompts))

    @torch.inference_mode()
    def encode_clips(self, clips: Sequence[AVClip]) -> list[AVLatents]:
        """Encodes clips, each brought to 4n + 1 frames (cut), the model's frame rate, mono and its sample rate."""
        return [self._encode(clip) for clip in clips]

    @torch.inference_mode()
    def decode_latents(self, latents: Sequence[AVLatents]) -> list[AVClip]:
        """Decodes latents, one clip at a time."""
        return [self._decode(one) for one in latents]

    @torch.inference_mode()
    def __call__(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        output: Literal["clip", "latents", "both"] = "clip",
    ) -> list[Any]:
        """Generates one clip per (prompt, seed).

        Noise is drawn by a CPU float32 generator from the seed alone and each clip is computed by itself, so that a
        clip is the same bit for bit whatever else is in the call.

        Returns:
            `AVClip`s, `AVLatents`, or (clip, latents) tuples, as `output` says.

        Raises:
            ValueError: when prompts and seeds differ in number, or a size does not fit the codec.
        """
        if len(prompts) != len(seeds):
            raise ValueError(f"{len(prompts)} prompts came with {len(seeds)} seeds: give one seed per prompt.")
        if output not in ("clip", "latents", "both"):
            raise ValueError(f"output is {output!r}; choose 'clip', 'latents' or 'both'.")
        defaults = self.defaults
        geometry = Geometry(num_frames or defaults.num_frames, height or defaults.height, width or defaults.width)
        steps = defaults.num_inference_steps if num_inference_steps is None else num_inference_steps
        scale = defaults.guidance_scale if guidance_scale is None else guidance_scale
        negative = self.encode_text([defaults.negative_prompt if negative_prompt is None else negative_prompt])
        embedded: dict[str, TextEmbeddings] = {}
        results: list[Any] = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            if prompt not in embedded:
                embedded[prompt] = self.encode_text([prompt])
            latents = self._generate(embedded[prompt], negative, seed, geometry, steps, scale)
            clip = None if output == "latents" else self._decode(latents)
            results.append({"clip": clip, "latents": latents, "both": (clip, latents)}[output])
        return results

    def _generate(
        self,
        text: TextEmbeddings,
        negative: TextEmbeddings,
        seed: int,
        geometry: Geometry,
        num_steps: int,
        guidance_scale: float,
    ) -> AVLatents:
        """Euler sampling with classifier-free guidance, conditional and negative halves in one call."""
        num_samples = round(geometry.num_frames / self.defaults.fps * self.defaults.sample_rate)
        video, audio = self._noise(seed, geometry, num_samples)
        embeds = torch.cat([text.embeds, negative.embeds]).to(self.device)
        mask = torch.cat([text.mask, negative.mask]).to(self.device)
        grid = sampling_timesteps(
            num_steps, geometry.height, geometry.width, geometry.num_frames, self.defaults.shift_scale
        )
        for now, then in zip(grid[:-1].tolist(), grid[1:].tolist(), strict=True):
            timestep = torch.full((2,), now, device=self.device)
            velocity = self.transformer(video.repeat(2, 1, 1, 1, 1), audio.repeat(2, 1, 1, 1), timestep, embeds, mask)
            video = euler_step(video, guide(velocity.video, guidance_scale), now, then)
            audio = euler_step(audio, guide(velocity.audio, guidance_scale), now, then)
        return AVLatents(
            video[0].cpu(),
            audio[0].cpu(),
            geometry.num_frames,
            geometry.height,
            geometry.width,
            self.defaults.fps,
            num_samples,
        )

    def _noise(self, seed: int, geometry: Geometry, num_samples: int) -> tuple[Tensor, Tensor]:
        """Video (1, C, T, H, W) and audio (1, C, T, M) noise, drawn in this order."""
        config = self.transformer.config
        generator = torch.Generator().manual_seed(seed)
        video = torch.randn(1, config.video_channels, *geometry.video_latent_size, generator=generator)
        audio_size = self.audio_codec.latent_size(num_samples)
        audio = torch.randn(1, config.audio_channels, *audio_size, generator=generator)
        return video.to(self.device), audio.to(self.device)

    def _encode(self, clip: AVClip) -> AVLatents:
        num_frames = (clip.num_frames - 1) // LATENT_FRAMES * LATENT_FRAMES + 1
        clip = convert_clip(clip, num_frames=num_frames, sample_rate=self.defaults.sample_rate, num_channels=1)
        video = torch.from_numpy(np.ascontiguousarray(clip.video))[None].to(self.device)
        waveform = torch.from_numpy(np.ascontiguousarray(clip.audio)).to(self.device)
        return AVLatents(
            self.video_codec.encode(video)[0].cpu(),
            self.audio_codec.encode(waveform)[0].cpu(),
            num_frames,
            clip.height,
            clip.width,
            clip.fps,
            clip.num_samples,
        )

    def _decode(self, latents: AVLatents) -> AVClip:
        video = self.video_codec.decode(latents.video[None].to(self.device))[0]
        waveform = self.audio_codec.decode(latents.audio[None].to(self.device), latents.num_samples)
        return AVClip(video.cpu().numpy(), latents.fps, waveform.cpu().numpy(), self.defaults.sample_rate)


def load_transformer(name_or_path: str | Path, dtype: torch.dtype = torch.float32) -> JointDiT:
    """The network alone, of a preset, a pipeline folder or an adapter folder (merged), on the CPU.

    Raises:
        ValueError: when the folder holds neither a pipeline nor an adapter.
    """
    folder = _resolve(name_or_path)
    base = _adapter_base(folder)
    if base is None:
        return JointDiT.from_pretrained(_base_folder(name_or_path) / "transformer", dtype=dtype)
    from peft import PeftModel  # late: costs seconds, and only adapters need it

    return PeftModel.from_pretrained(load_transformer(base, dtype), str(folder)).merge_and_unload().eval()


def _base_folder(name_or_path: str | Path) -> Path:
    """The pipeline folder of a model; an adapter's is that of its base."""
    folder = _resolve(name_or_path)
    base = _adapter_base(folder)
    if base is not None:
        return _base_folder(base)
    if not (folder / PIPELINE_CONFIG_NAME).exists():
        raise ValueError(
            f"{str(name_or_path)!r} is no model: it is neither a preset ({', '.join(PRESETS)}) nor a folder with "
            f"{PIPELINE_CONFIG_NAME} or {ADAPTER_CONFIG_NAME}. Give the folder that training wrote."
        )
    return folder


def _adapter_base(folder: Path) -> str | None:
    """The model that the adapter in `folder` belongs to; None where there is no adapter."""
    path = folder / ADAPTER_CONFIG_NAME
    return json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"] if path.exists() else None


def _resolve(name_or_path: str | Path) -> Path:
    return preset_path(str(name_or_path)) if str(name_or_path) in PRESETS else Path(name_or_path)
