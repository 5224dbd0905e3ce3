"""Settings of preference training: TRL's names where TRL has them, one field per modality where it has one number.

Learning rate, warm-up, optimiser, seed and loss weights default to the published stage-3 run.
"""

from dataclasses import dataclass, field

from dpo.objectives import LossType
from dpo.schema import MODALITIES
from model.run_state import NEUTRAL_SETTINGS as RUN_NEUTRAL_SETTINGS
from model.stages import LORA_TARGET_MODULES
from model.training_args import JointTrainingArguments


@dataclass
class AVDPOConfig(JointTrainingArguments):
    """What every training of a joint model can set, plus the loss and the alarm of `AVDPOTrainer`."""

    beta_video: float = field(default=3000.0, metadata={"help": "strength of the video preference (published 3000)"})
    beta_audio: float = field(default=1000.0, metadata={"help": "strength of the audio preference (published 1000)"})
    fm_weight: float = field(
        default=0.1,
        metadata={"help": "weight of the winner's flow-matching error, which keeps the model on the data"},
    )
    loss_type: LossType = field(default="sigmoid", metadata={"help": "sigmoid (published), ipo or hinge"})
    label_smoothing: float = field(
        default=0.0, metadata={"help": "share of pairs assumed to be labelled the wrong way round, in [0, 0.5)"}
    )
    winner_error_window: int = field(
        default=50, metadata={"help": "warn when the winner's error stays above the reference's for so many steps"}
    )

    num_train_epochs: float = field(default=1.0, metadata={"help": "passes over the pairs"})
    per_device_train_batch_size: int = field(default=1, metadata={"help": "pairs per forward pass and device"})
    learning_rate: float = field(default=1e-5, metadata={"help": "peak learning rate of AdamW (published 1e-5)"})
    warmup_steps: float = field(default=100, metadata={"help": "steps of linear warm-up; below 1: share of all steps"})

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_loss_settings()
        self._check_training_settings()

    @property
    def beta(self) -> dict[str, float]:
        return {name: getattr(self, f"beta_{name}") for name in MODALITIES}

    def _check_loss_settings(self) -> None:
        for name in ("beta_video", "beta_audio", "fm_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, which would train towards the loser: give >= 0.")
        if not 0 <= self.label_smoothing < 0.5 or (self.label_smoothing and self.loss_type != "sigmoid"):
            raise ValueError(
                f"label_smoothing {self.label_smoothing} with loss_type {self.loss_type!r} has no meaning: "
                "give [0, 0.5) with 'sigmoid', or 0."
            )

    def _check_training_settings(self) -> None:
        if self.winner_error_window < 1:
            raise ValueError(f"winner_error_window is {self.winner_error_window}: give at least 1 step.")
        if self.eval_strategy != "no":
            raise ValueError(
                f"eval_strategy is {self.eval_strategy!r}, but this trainer has no evaluation set: set it to 'no' "
                "and compare models with `python -m evaluation.compare`."
            )


@dataclass
class TrainConfig(AVDPOConfig):
    """`python -m dpo.train`: what to train on what, and the adapter that learns it."""

    model: str = field(default="", metadata={"help": "model to align: 'tiny', a model folder or an adapter folder"})
    dataset: str = field(default="", metadata={"help": "folder written by `python -m dpo.prepare`"})
    lora_r: int = field(default=64, metadata={"help": "rank of the adapter (published 64)"})
    lora_alpha: int = field(default=16, metadata={"help": "adapter scale is lora_alpha / lora_r (published 16)"})
    lora_dropout: float = field(
        default=0.0,
        metadata={"help": "published 0.05; above 0 the policy differs from the reference by the mask's noise"},
    )
    lora_target_modules: list[str] = field(
        default_factory=lambda: list(LORA_TARGET_MODULES), metadata={"help": "name endings of the adapted layers"}
    )
    dry_run: bool = field(default=False, metadata={"help": "check everything, print the plan and stop"})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, wanted in (("model", "a model folder or 'tiny'"), ("dataset", "a folder made by dpo.prepare")):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty, so there is nothing to train: set --{name} to {wanted}.")
        if self.lora_r < 1 or not 0 <= self.lora_dropout < 1:
            raise ValueError(
                f"lora_r {self.lora_r} and lora_dropout {self.lora_dropout} make no adapter: "
                "give a rank >= 1 and a dropout in [0, 1)."
            )


NEUTRAL_SETTINGS = RUN_NEUTRAL_SETTINGS | {"winner_error_window"}
