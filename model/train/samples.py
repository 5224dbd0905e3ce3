"""Samples with sound during training, from the same prompts and seeds at every evaluation."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from media.audio import write_wav
from media.clip import AVClip
from media.write import write_clip
from model.javisdit.codecs.latents import AVLatents
from model.javisdit.network.transformer import JointDiT, JointOutput
from model.javisdit.pipeline import JointAVPipeline
from model.train.joint_trainer import reshard

if TYPE_CHECKING:
    from model.train.joint_trainer import JointTrainer

NUM_TRACKED_FRAMES = 6  # of a clip, side by side in TensorBoard, whose videos need another package


def samples_folder(args: TrainingArguments, step: int) -> Path:
    """Return the folder for the samples of a step."""
    return Path(str(args.output_dir)) / "samples" / f"step-{step:07d}"


class NetworkInTraining:
    """Adapter that lets a pipeline call the network in training.

    The network stays on its device and is called through the outermost module, which gathers sharded weights.
    """

    def __init__(self, trainer: JointTrainer) -> None:
        self.trainer = trainer
        self.config = trainer.network.config

    def to(self, device: torch.device) -> NetworkInTraining:
        return self

    def __call__(
        self,
        video: Tensor | None,
        audio: Tensor | None,
        timestep: Tensor,
        text: Tensor,
        text_mask: Tensor,
        num_frames: int | None = None,
    ) -> JointOutput:
        model: Any = self.trainer.model
        with self.trainer.compute_loss_context_manager():
            output = model(
                video=video, audio=audio, timestep=timestep, text=text, text_mask=text_mask, num_frames=num_frames
            )
        reshard(model)
        return output


class SampleWriter(TrainerCallback):
    """Callback that writes `<i>.mp4` and `.wav` into `samples_folder` and sends them to the trackers of `report_to`."""

    def __init__(
        self,
        trainer: JointTrainer,
        model: str,
        prompts: Sequence[str],
        modalities: Sequence[str],
        seed: int,
    ) -> None:
        """Load the codecs and text encoder of `model` for the trainer's network; clip i is sampled with seed + i.

        Raises:
            ValueError: report_to names TensorBoard, which is not installed; its replacement tensorboardX lacks sound.
        """
        if "tensorboard" in trainer.args.report_to and importlib.util.find_spec("tensorboard") is None:
            raise ValueError(
                "report_to is 'tensorboard', but the package, which shows samples with sound, is not installed: pip "
                "install tensorboard."
            )
        self.trainer = trainer
        network = cast(JointDiT, NetworkInTraining(trainer))
        self.pipeline = JointAVPipeline.from_pretrained(model, trainer.args.device, transformer=network)
        self.prompts = list(prompts)
        self.modalities = tuple(modalities)
        self.seeds = [seed + index for index in range(len(prompts))]

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        network = self.trainer.network
        was_training = network.training
        network.eval()
        with torch.random.fork_rng(), self.trainer.averaged():  # every process, for sharded weights
            latents = self.pipeline(self.prompts, seeds=self.seeds, modalities=self.modalities, output="latents")
        network.train(was_training)
        if state.is_world_process_zero:
            self._write(samples_folder(args, state.global_step), latents, state.global_step)

    def _write(self, folder: Path, latents: list[AVLatents], step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        rate = self.pipeline.defaults.sample_rate
        if "video" in self.modalities:
            clips = self.pipeline.decode_latents(latents)
            sounds = [clip.audio for clip in clips]
            for index, clip in enumerate(clips):
                write_clip(clip, folder / f"{index}.mp4")  # and the wav beside it
                self._track_clip(index, clip, folder / f"{index}.mp4", step)
        else:
            sounds = self.pipeline.decode_audio(latents)
            for index, sound in enumerate(sounds):
                write_wav(folder / f"{index}.wav", sound, rate)
        writer = self._tensorboard()
        for index, sound in enumerate(sounds):
            if writer is not None and sound.size:
                writer.add_audio(f"samples/{index}", sound, step, sample_rate=rate)

    def _track_clip(self, index: int, clip: AVClip, path: Path, step: int) -> None:
        writer = self._tensorboard()
        if writer is not None:
            frames = clip.video[:: max(clip.num_frames // NUM_TRACKED_FRAMES, 1)]
            writer.add_images(f"samples/{index}", frames, step, dataformats="NHWC")
        if "wandb" in self.trainer.args.report_to:
            import wandb

            media = wandb.Video(str(path), caption=self.prompts[index], format="mp4")
            wandb.log({f"samples/{index}": media, "train/global_step": step})

    def _tensorboard(self) -> Any:
        """Return the writer of transformers' TensorBoard callback, or None without one."""
        writers = (getattr(callback, "tb_writer", None) for callback in self.trainer.callback_handler.callbacks)
        return next((writer for writer in writers if writer is not None), None)
