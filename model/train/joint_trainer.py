"""The base trainer for joint audio-video networks, shared by flow matching and preference training.

Checkpoints, resume, accelerate (DDP, FSDP2, DeepSpeed) and schedules are transformers' own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import DataLoader
from transformers import PrinterCallback, ProgressCallback, SchedulerType, Trainer, TrainerCallback
from transformers.trainer import TRAINING_ARGS_NAME

from model.data.batches import BucketBatchSampler
from model.javisdit.network.transformer import JointDiT, JointOutput
from model.train.arguments import JointTrainingArguments
from model.train.callbacks import AverageUpdater, EpochSetter, JsonlLog, ShortProgress
from model.train.ema import WeightAverage
from model.train.metrics import SpeedMeter, gradient_norms


class JointTrainer(Trainer):
    """Trainer with batches of one shape, the published warm-up, a running average, a log, and adapters in peft layout.

    A log line with a loss also holds, for the steps since the last one, the values of `measured`,
    `grad_norm/<branch>` before clipping, tokens per second and memory.
    """

    args: JointTrainingArguments
    model: nn.Module
    train_dataset: Any
    eval_dataset: Any
    loss_is_scaled_for_ga = False  # compute_loss returns the mean over a micro-batch

    def __init__(
        self,
        model: JointDiT | PeftModel,
        args: JointTrainingArguments,
        train_dataset: Any,
        sampler: BucketBatchSampler,
        collator: Callable[[list[Any]], Any],
        *,
        postfix: Callable[[dict[str, Any]], dict[str, str]],
        callbacks: list[TrainerCallback] | None = None,
        **options: Any,
    ) -> None:
        """Create the trainer; `postfix` selects from a log line the values that the progress bar shows."""
        self.network = network_of(model)
        self.sampler = sampler
        self._switch_network_features(args)
        if isinstance(model, PeftModel):
            # transformers writes into the config of any model that has one; ours is frozen.
            model.config = None  # type: ignore[assignment]
        trained = model if isinstance(model, PeftModel) else TrainedNetwork(model)
        watchers = [JsonlLog(), EpochSetter(sampler), *(callbacks or [])]
        super().__init__(trained, args, collator, train_dataset=train_dataset, callbacks=watchers, **options)
        if self.is_fsdp_enabled:
            # FSDP would cast every input of a block, rotary tables and modulation too; autocast casts products alone.
            self.accelerator.state.fsdp_plugin.mixed_precision_policy = None
        self.remove_callback(PrinterCallback if args.disable_tqdm else ProgressCallback)
        if not args.disable_tqdm:
            self.add_callback(ShortProgress(postfix))
        self.average: WeightAverage | None = None
        self.speed = SpeedMeter()
        self._gradient_norms: dict[str, float] = {}
        self.add_callback(AverageUpdater(self))

    def get_train_dataloader(self) -> DataLoader:
        """Return the loader of the sampler's batches, distributed over the processes."""
        return self.accelerator.prepare(self.loader(self.train_dataset, self.sampler, self.data_collator))

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        """Create the published warm-up, lr * (step + 1) / (warmup + 1), if chosen, else transformers'."""
        if self.args.lr_scheduler_type != SchedulerType.CONSTANT_WITH_WARMUP:
            return super().create_scheduler(num_training_steps, optimizer)
        if self.lr_scheduler is None:
            warmup = self.args.get_warmup_steps(num_training_steps)
            self.lr_scheduler = LambdaLR(
                cast(torch.optim.Optimizer, optimizer or self.optimizer),
                lambda step: min((step + 1) / (warmup + 1), 1.0),
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """Run transformers' step and keep the gradient norms before clipping for the next log line."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        step = self.state.global_step + 1
        will_log = step % self.state.logging_steps == 0 or (step == 1 and self.args.logging_first_step)
        if will_log and self.accelerator.sync_gradients:
            self._gradient_norms = gradient_norms(self.model)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log a line with the values measured since the last one."""
        if "loss" in logs:
            logs = logs | self._gradient_norms | self.measured() | self.speed.drain(self.sum_over_processes)
        super().log(logs, start_time)

    def measured(self) -> dict[str, float]:
        """Return the parts of the losses since the last line; every process calls this."""
        return {}

    @torch.no_grad()
    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Log the losses of `evaluation_losses`, then run the callbacks of an evaluation, such as samples."""
        logs = self.evaluation_losses()
        if logs:
            self.log(logs)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, logs)
        self.speed = SpeedMeter()  # evaluation is no training time
        return logs

    def evaluation_losses(self) -> dict[str, float]:
        """Return losses on unseen data; empty without such data."""
        return {}

    def averaged(self) -> AbstractContextManager[None]:
        """Give the model the averaged weights within the block, where there is an average."""
        return nullcontext() if self.average is None else self.average.applied(self.model)

    def start_average(self) -> None:
        """Start the running average at the current weights, unless a checkpoint gave one."""
        if self.args.ema_decay and self.average is None:
            self.average = WeightAverage(self.model, self.args.ema_decay)

    def compute_loss_context_manager(self) -> ExitStack:
        """Return a context with autocast to the settings' precision, which accelerate does not always apply."""
        stack = super().compute_loss_context_manager()
        stack.enter_context(self.accelerator.autocast())
        return stack

    def check_finite(self, loss: Tensor, names: list[str], remedy: str) -> None:
        """Raise ValueError for a loss that is not finite."""
        if not torch.isfinite(loss):
            raise ValueError(
                f"The loss is {loss.item()} at step {self.state.global_step + 1}, with {', '.join(names[:4])}: the run "
                f"has diverged; {remedy}, and continue from the last checkpoint."
            )

    def sum_over_processes(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes, on the CPU."""
        device = torch.device("cpu") if self.args.device.type == "mps" else self.args.device
        return cast(Tensor, self.accelerator.reduce(values.to(device), reduction="sum")).cpu()

    def loader(self, dataset: Any, sampler: BucketBatchSampler, collator: Callable[[list[Any]], Any]) -> DataLoader:
        """Return a loader of the sampler's batches by the settings of `args`."""
        args = self.args
        return DataLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory and args.device.type == "cuda",
            persistent_workers=args.dataloader_persistent_workers,
        )

    def _switch_network_features(self, args: JointTrainingArguments) -> None:
        """Turn on checkpointing and compilation per block in the network; transformers would wrap the whole network."""
        if args.activation_checkpointing or args.gradient_checkpointing:
            self.network.gradient_checkpointing = True
            args.activation_checkpointing = args.gradient_checkpointing = False
        if args.torch_compile:
            self.network.compile_blocks(backend=args.torch_compile_backend or "inductor")
            args.torch_compile, args.torch_compile_backend = False, None

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.average is not None:
            self.average.save(output_dir, self.args.should_save)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self.args.ema_decay:
            self.start_average()
            assert self.average is not None
            self.average.load(checkpoint)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write the adapter alone, where there is one, else the whole model."""
        folder = output_dir or str(self.args.output_dir)
        if not isinstance(self.model, PeftModel):
            super()._save(folder, state_dict)
            return
        save_adapter(self.model, folder, state_dict, self.args.should_save)
        torch.save(self.args, Path(folder) / TRAINING_ARGS_NAME)


def save_adapter(
    model: PeftModel, folder: str | Path, state_dict: dict[str, Tensor] | None, is_writer: bool = True
) -> None:
    """Write the trained adapter in peft layout, without other adapters of the model."""
    model.save_pretrained(
        str(folder),
        state_dict=state_dict,
        selected_adapters=model.active_adapters,
        save_embedding_layers=False,  # else peft looks up the vocabulary of the base model on the Hub
        is_main_process=is_writer,
    )


def reshard(model: nn.Module) -> None:
    """Free the gathered weights that FSDP2's outermost module keeps after a forward pass without a backward pass."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


class TrainedNetwork(nn.Module):
    """Wrapper that hides a network's `config`, which transformers and its trackers would treat as one of theirs."""

    accepts_loss_kwargs = False

    def __init__(self, network: JointDiT) -> None:
        super().__init__()
        self.network = network

    def forward(self, **inputs: Any) -> JointOutput:
        return self.network(**inputs)


def network_of(model: nn.Module) -> JointDiT:
    """Return the network inside a trained model."""
    if isinstance(model, PeftModel):
        model = model.get_base_model()
    return cast(JointDiT, model.network if isinstance(model, TrainedNetwork) else model)
