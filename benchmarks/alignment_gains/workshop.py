"""Material that the rows of the benchmark share: prompts, candidates, training data and evaluations, each made once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from benchmarks.alignment_gains.config import GainsConfig
from benchmarks.bounce_runs import TRAINING_SEED, check_status, evaluate, make_prompts, run_stages
from core.atomic import atomic_write_text
from core.stage_state import finished_summary
from dpo.construct.command import main as construct
from dpo.prepare.command import main as prepare_preferences
from evaluation.compare.figures import modality_scores
from evaluation.compare.model_table import read_model
from model.prepare.command import main as prepare_clips

CLEAN_CLIPS_SEED = 520_000  # scenes of the constructed pairs, apart from the pool's and the rounds'
WINNERS_PER_PROMPT = 2
POOL_SEED = 0


class Workshop:
    """Makes and keeps the material of a run in its output folder."""

    def __init__(self, config: GainsConfig) -> None:
        self.config = config
        self.root = config.output_dir

    def prompts(self, name: str, count: int, first_seed: int) -> Path:
        """Return a table of prompts with rendered clips."""
        return make_prompts(self.root / "prompts" / name, count, first_seed, self.config.num_workers)

    def pool(self, with_ground_truth: bool = False) -> Path:
        """Return the run folder of the scored candidates, `group_size` for each prompt."""
        config = self.config
        prompts = self.prompts("pool", config.num_prompts, TRAINING_SEED)
        return run_stages(
            prompts,
            config.model,
            self.root / ("pool_with_ground_truth" if with_ground_truth else "pool"),
            ["sample", "score"],
            config.num_workers,
            num_candidates=config.group_size,
            guidance_scale=config.guidance_scale,
            include_ground_truth=with_ground_truth,
            seed=POOL_SEED,
        )

    def groups(self) -> Path:
        """Return the training groups: all candidates of the pool."""
        return self._prepared("groups", lambda folder: ["--groups", str(self.pool()), *self._output(folder)])

    def pairs(self, strategy: str, ground_truth: str = "never") -> Path:
        """Return the training pairs that a strategy ranks from the pool."""

        def arguments(folder: Path) -> list[str]:
            pool = self.pool(with_ground_truth=ground_truth != "never")
            run_stages(
                self.prompts("pool", self.config.num_prompts, TRAINING_SEED),
                self.config.model,
                pool,
                ["rank"],
                self.config.num_workers,
                num_candidates=self.config.group_size,
                guidance_scale=self.config.guidance_scale,
                include_ground_truth=ground_truth != "never",
                strategy=strategy,
                ground_truth=ground_truth,
                pairs_per_prompt=WINNERS_PER_PROMPT,
            )
            return ["--pairs", str(pool / "pairs"), *self._output(folder)]  # the pairs of the last ranked strategy

        return self._prepared(f"pairs-{strategy}-{ground_truth}", arguments)

    def winners(self) -> Path:
        """Return latents of the best candidates of each prompt, for further training without losers."""
        folder = self.root / "data" / "winners"
        if finished_summary(folder) is None:
            table = self.root / "pool" / "winners.csv"
            atomic_write_text(table, best_candidates(self.pool(), WINNERS_PER_PROMPT).to_csv(index=False))
            check_status(prepare_clips(["--clips", str(table), *self._output(folder)]))
        return folder

    def constructed(self, stages: Sequence[str]) -> Path:
        """Return pairs of rendered clips and the same clips with shifted sound."""
        folder = self.root / "data" / ("constructed-" + "+".join(stages))
        if finished_summary(folder) is None:
            clips = self.prompts("clean", self.config.num_prompts * self.config.group_size // 2, CLEAN_CLIPS_SEED)
            latents = self.root / "data" / "clean"
            check_status(prepare_clips(["--clips", str(clips), *self._output(latents)]))
            place = ["--latents", str(latents), *self._output(folder)]
            check_status(construct([*place, "--stages", *stages]))
        return folder

    def evaluation(self, model: str, name: str) -> Path:
        """Return the folder of two scored samples of every held-out caption."""
        config = self.config
        prompts = self.prompts(config.captions, config.num_held_out, config.held_out_seed)
        folder = self.root / "evaluation" / config.captions / name
        return evaluate(prompts, model, folder, config.num_workers, guidance_scale=config.guidance_scale)

    def _prepared(self, name: str, arguments: Callable[[Path], list[str]]) -> Path:
        folder = self.root / "data" / name
        if finished_summary(folder) is None:
            check_status(prepare_preferences(arguments(folder)))
        return folder

    def _output(self, folder: Path) -> list[str]:
        return ["--model", self.config.model, "--output", str(folder)]


def best_candidates(pool: Path, per_prompt: int) -> pd.DataFrame:
    """Return the clips of the best candidates of each prompt by the overall score, as a table for model.prepare."""
    table = read_model(pool, "pool")
    overall = overall_scores(table.rows[list(table.higher_is_better)].astype(float), table.higher_is_better)
    candidates = pd.read_parquet(pool / "candidates" / "candidates.parquet").set_index("candidate_id")
    candidates = candidates.loc[overall.index].assign(overall=overall).dropna(subset="overall")
    chosen = candidates.sort_values("overall", ascending=False).groupby("prompt_id").head(per_prompt).reset_index()
    for column in ("video_path", "audio_path"):
        chosen[column] = [str((pool / "candidates" / path).resolve()) for path in chosen[column]]
    return chosen[["candidate_id", "prompt", "video_path", "audio_path"]].rename(columns={"candidate_id": "clip_id"})


def overall_scores(scores: pd.DataFrame, higher_is_better: Mapping[str, bool]) -> pd.Series:
    """Return the mean of the standardised modality scores of each sample, under the index of `scores`."""
    modalities, _ = modality_scores(scores, scores.iloc[:0], higher_is_better)
    return modalities["overall"].set_axis(scores.index)
