"""Text-to-audio-video pipeline: one call runs the text encoder, the network and the codecs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import trange

from media.clip import AVClip, empty_audio
from media.convert import convert_clip
from model.data.latent_schema import MODALITIES
from model.flow import INFERENCE_SHIFT_SCALE, TRAINING_SHIFT_SCALE, guide
from model.javisdit.codecs.interface import AudioCodec, VideoCodec, load_audio_codec, load_video_codec
from model.javisdit.codecs.latents import AVLatents
from model.javisdit.components import Components, Part
from model.javisdit.network.sizes import FRAMES_PER_STEP, ClipSize
from model.javisdit.network.transformer import JointDiT
from model.javisdit.text import TextEmbeddings, TextEncoder
from model.javisdit.weights.folders import (
    PIPELINE_CONFIG_NAME,
    base_folder,
    component_path,
    load_transformer,
    transformer_config,
)
from model.solvers import SolverName, make_solver

OUTPUTS = ("clip", "latents", "both")


@dataclass(frozen=True)
class GenerationDefaults:
    """Default settings of a generation call; stored in the model's folder."""

    num_frames: int = 81
    height: int = 240
    width: int = 432
    fps: float = 16.0
    sample_rate: int = 16_000
    num_inference_steps: int = 50
    guidance_scale: float = 5.0
    solver: SolverName = "euler"
    shift_scale: float = INFERENCE_SHIFT_SCALE
    training_shift_scale: float = TRAINING_SHIFT_SCALE
    negative_prompt: str = ""

    @property
    def num_samples(self) -> int:
        return round(self.num_frames / self.fps * self.sample_rate)


@dataclass(frozen=True)
class _Request:
    """Settings of one call, with all defaults filled in."""

    size: ClipSize
    num_samples: int
    num_steps: int
    guidance_scale: float
    solver: str
    shift_scale: float
    modalities: tuple[str, ...]
    progress: bool


class JointAVPipeline:
    """Generates clips from prompts, and encodes text and clips for training.

    Build it with `from_pretrained` or `from_parts`.
    """

    def __init__(self, parts: Components, defaults: GenerationDefaults) -> None:
        """Store the parts "transformer", "video_codec", "audio_codec" and "text_encoder", and the defaults."""
        self._parts = parts
        self.defaults = defaults

    @classmethod
    def from_parts(
        cls,
        transformer: JointDiT,
        video_codec: VideoCodec,
        audio_codec: AudioCodec,
        text_encoder: TextEncoder,
        defaults: GenerationDefaults,
        device: str | torch.device = "cpu",
        offload: bool = False,
    ) -> JointAVPipeline:
        """Build a pipeline from parts that are already in memory, and move them to `device`."""
        loaders: dict[str, Callable[[], Part]] = {
            "transformer": transformer.eval,
            "video_codec": lambda: video_codec,
            "audio_codec": lambda: audio_codec,
            "text_encoder": lambda: text_encoder,
        }
        return cls(Components(loaders, device, offload), defaults)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        offload: bool = False,
        transformer: JointDiT | None = None,
    ) -> JointAVPipeline:
        """Load a preset, a pipeline folder, or a peft adapter folder (its base with the adapter merged).

        Each part is loaded on first use.

        Args:
            name_or_path: name of a preset, or path of a folder.
            device: device on which the parts compute.
            dtype: dtype of the network and the text encoder. Codecs compute in float32, as in the release (which rounds
                the video codec's weights to bfloat16 first).
            offload: keep each part on the CPU except while it is in use on `device`.
            transformer: network to use instead of the stored one, for example the network in training.

        Raises:
            ValueError: if the folder contains neither a pipeline nor an adapter.
        """
        folder = base_folder(name_or_path)
        loaders: dict[str, Callable[[], Part]] = {
            "transformer": lambda: load_transformer(name_or_path, dtype) if transformer is None else transformer,
            "video_codec": lambda: load_video_codec(component_path(folder, "video_codec")),
            "audio_codec": lambda: load_audio_codec(component_path(folder, "audio_codec")),
            "text_encoder": lambda: TextEncoder.from_pretrained(
                component_path(folder, "text_encoder"), transformer_config(folder).text_len, dtype
            ),
        }
        return cls(Components(loaders, device, offload), read_defaults(folder / PIPELINE_CONFIG_NAME))

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write all parts into one folder; `dtype` casts the stored weights of the network and the codecs."""
        folder = Path(folder)
        self.transformer.save_pretrained(folder / "transformer", dtype)
        self.video_codec.save_pretrained(folder / "video_codec", dtype)
        self.audio_codec.save_pretrained(folder / "audio_codec", dtype)
        self.text_encoder.save_pretrained(folder / "text_encoder")
        settings = {"defaults": asdict(self.defaults)}
        (folder / PIPELINE_CONFIG_NAME).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    def to(self, device: str | torch.device) -> JointAVPipeline:
        """Move the parts to a device and return the pipeline."""
        self._parts.to(device)
        return self

    @property
    def transformer(self) -> JointDiT:
        return self._parts["transformer"]

    @property
    def video_codec(self) -> VideoCodec:
        return self._parts["video_codec"]

    @property
    def audio_codec(self) -> AudioCodec:
        return self._parts["audio_codec"]

    @property
    def text_encoder(self) -> TextEncoder:
        return self._parts["text_encoder"]

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the parts that are in memory."""
        return self._parts.loaded

    @property
    def device(self) -> torch.device:
        """Device on which the parts compute."""
        return self._parts.device

    @property
    def model_id(self) -> str:
        """Twelve hex digits that change with any weight or setting of the network."""
        digest = hashlib.blake2b(repr(self.transformer.config).encode(), digest_size=6)
        for name, tensor in sorted(self.transformer.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().float().numpy().tobytes())
        return digest.hexdigest()

    def encode_text(self, prompts: Sequence[str]) -> TextEmbeddings:
        """Embed prompts: float32 (B, L, D) with zeros on padding, and the mask (B, L)."""
        with self._parts.use("text_encoder") as encoder:
            return encoder(list(prompts))

    @torch.inference_mode()
    def encode_clips(self, clips: Sequence[AVClip]) -> list[AVLatents]:
        """Encode clips, each cut to 4n + 1 frames and converted to mono sound at the model's sample rate."""
        clips = [
            convert_clip(
                clip,
                num_frames=(clip.num_frames - 1) // FRAMES_PER_STEP * FRAMES_PER_STEP + 1,
                sample_rate=self.defaults.sample_rate,
                num_channels=1,
            )
            for clip in clips
        ]
        with self._parts.use("video_codec") as codec:
            videos = [codec.encode(self._tensor(clip.video[None]))[0].cpu() for clip in clips]
        with self._parts.use("audio_codec") as codec:
            audios = [codec.encode(self._tensor(clip.audio))[0].cpu() for clip in clips]
        return [
            AVLatents(video, audio, clip.num_frames, clip.height, clip.width, clip.fps, clip.num_samples)
            for clip, video, audio in zip(clips, videos, audios, strict=True)
        ]

    @torch.inference_mode()
    def decode_latents(self, latents: Sequence[AVLatents]) -> list[AVClip]:
        """Decode latents to clips, one clip at a time."""
        with self._parts.use("video_codec") as codec:
            videos = [codec.decode(one.video[None].to(self.device))[0].cpu().numpy() for one in latents]
        return [
            AVClip(video, one.fps, audio, self.defaults.sample_rate if audio.size else 0)
            for one, video, audio in zip(latents, videos, self.decode_audio(latents), strict=True)
        ]

    @torch.inference_mode()
    def decode_audio(self, latents: Sequence[AVLatents]) -> list[np.ndarray]:
        """Decode only the sound of each clip, float32 (1, samples); shape (0, 0) for latents without audio."""
        with self._parts.use("audio_codec") as codec:
            return [
                codec.decode(one.audio[None].to(self.device), one.num_samples).cpu().numpy()
                if one.audio.numel()
                else empty_audio()
                for one in latents
            ]

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
        solver: SolverName | None = None,
        shift_scale: float | None = None,
        modalities: Sequence[str] = MODALITIES,
        output: Literal["clip", "latents", "both"] = "clip",
        progress: bool = False,
    ) -> list[Any]:
        """Generate one clip per (prompt, seed) pair.

        A CPU float32 generator draws the noise from the seed alone, and each clip is computed separately, so a clip is
        bitwise the same in any call.

        Args:
            prompts: captions, one per clip.
            seeds: seeds of the noise, one per clip.
            num_frames, height, width: 4n + 1 frames, multiples of 16 pixels; `model.javisdit.network.sizes` has the
                published sizes.
            num_inference_steps: number of solver steps.
            guidance_scale: scale of classifier-free guidance; 1 turns guidance and the negative prompt off and halves
                the work.
            negative_prompt: text of the unconditional half of guidance.
            solver: "euler" (published), "unipc" or "dpm++".
            shift_scale: shift of the timesteps towards noise; published sampling 1.0, published training 5.0.
            modalities: modalities to generate. ("video",) gives silent clips; ("audio",) needs output "latents", which
                `decode_audio` turns into sound.
            output: "clip", "latents" or "both".
            progress: show a progress bar of the steps on stderr.

        Returns:
            `AVClip`s, `AVLatents`, or (clip, latents) tuples, as selected by `output`.

        Raises:
            ValueError: if prompts and seeds differ in number, a size does not fit the codec, or `modalities` give no
                clip.
        """
        if isinstance(prompts, str):
            raise ValueError(f"prompts is the text {prompts!r}: give a list of prompts, and a list of seeds.")
        if len(prompts) != len(seeds):
            raise ValueError(f"{len(prompts)} prompts were given with {len(seeds)} seeds: give one seed per prompt.")
        if output not in OUTPUTS:
            raise ValueError(f"output is {output!r}: choose 'clip', 'latents' or 'both'.")
        if output != "latents" and "video" not in modalities:
            raise ValueError(f"modalities {tuple(modalities)} give no clip: use output='latents' and decode_audio.")
        defaults = self.defaults
        size = ClipSize(
            defaults.num_frames if num_frames is None else num_frames,
            defaults.height if height is None else height,
            defaults.width if width is None else width,
        )
        size.check_unpadded()
        request = _Request(
            size=size,
            num_samples=round(size.num_frames / defaults.fps * defaults.sample_rate),
            num_steps=defaults.num_inference_steps if num_inference_steps is None else num_inference_steps,
            guidance_scale=defaults.guidance_scale if guidance_scale is None else guidance_scale,
            solver=solver or defaults.solver,
            shift_scale=defaults.shift_scale if shift_scale is None else shift_scale,
            modalities=tuple(name for name in MODALITIES if name in modalities),
            progress=progress,
        )
        negative = defaults.negative_prompt if negative_prompt is None else negative_prompt
        latents = self._generate(prompts, negative, seeds, request)
        if output == "latents":
            return list(latents)
        clips = self.decode_latents(latents)
        return clips if output == "clip" else list(zip(clips, latents, strict=True))

    def _generate(
        self, prompts: Sequence[str], negative_prompt: str, seeds: Sequence[int], request: _Request
    ) -> list[AVLatents]:
        texts = list(dict.fromkeys([negative_prompt, *prompts]))
        embedded = self.encode_text(texts)
        rows = {text: (embedded.embeds[i], embedded.mask[i]) for i, text in enumerate(texts)}
        with self._parts.use("transformer") as transformer:
            results = []
            for prompt, seed in zip(prompts, seeds, strict=True):
                guided = [rows[prompt], rows[negative_prompt]] if request.guidance_scale != 1 else [rows[prompt]]
                embeds, mask = (torch.stack(tensors).to(self.device) for tensors in zip(*guided, strict=True))
                noise = self._noise(transformer.config, seed, request)
                results.append(self._denoise(transformer, noise, embeds, mask, request))
        return results

    def _denoise(
        self, transformer: JointDiT, latents: dict[str, Tensor], embeds: Tensor, mask: Tensor, request: _Request
    ) -> AVLatents:
        """Solve from noise to data with classifier-free guidance, conditional and negative halves in one batch."""
        size = request.size
        shape = (size.height, size.width, size.num_frames)
        solvers = {
            name: make_solver(request.solver, request.num_steps, *shape, request.shift_scale) for name in latents
        }
        timesteps = next(iter(solvers.values())).timesteps
        for index in trange(len(timesteps), desc="denoise", leave=False, disable=not request.progress):
            timestep = torch.full((len(mask),), timesteps[index], device=self.device)
            inputs = {name: latent.expand(len(mask), *latent.shape[1:]) for name, latent in latents.items()}
            velocity = transformer(
                inputs.get("video"), inputs.get("audio"), timestep, embeds, mask, size.num_frames
            )._asdict()
            for name, latent in latents.items():
                guided = guide(velocity[name], request.guidance_scale) if len(mask) > 1 else velocity[name]
                latents[name] = solvers[name].step(index, guided, latent)
        video, audio = (latents[name][0].cpu() if name in latents else torch.empty(0) for name in MODALITIES)
        return AVLatents(video, audio, size.num_frames, size.height, size.width, self.defaults.fps, request.num_samples)

    def _noise(self, config: Any, seed: int, request: _Request) -> dict[str, Tensor]:
        """Draw video noise (1, C, T, H, W), then audio noise (1, C, T, M).

        Video noise is drawn even for audio alone, so that a seed always gives the same audio noise.
        """
        generator = torch.Generator().manual_seed(int(seed))  # int() for numpy's integers
        video_shape = (config.video_channels, *request.size.latent_size)
        noise = {"video": torch.randn(1, *video_shape, generator=generator)}
        if "audio" in request.modalities:
            audio_size = self.audio_codec.latent_size(request.num_samples)
            noise["audio"] = torch.randn(1, config.audio_channels, *audio_size, generator=generator)
        return {name: noise[name].to(self.device) for name in request.modalities}

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


def read_defaults(path: Path) -> GenerationDefaults:
    """Read the generation defaults from a `pipeline.json`.

    Raises:
        ValueError: for an unknown setting.
    """
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")).get("defaults", {})
    unknown = set(settings) - {field.name for field in fields(GenerationDefaults)}
    if unknown:
        raise ValueError(f"{path} has unknown defaults {sorted(unknown)}: remove them, or correct their spelling.")
    return GenerationDefaults(**settings)
