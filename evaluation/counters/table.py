"""Counter-metrics of all samples of a run, measured where the cache lacks them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from evaluation.counters.cache import CACHE_NAME, CounterCache
from evaluation.counters.clip import ClipCounters, measure_counters
from evaluation.counters.diversity import mean_distances
from evaluation.counters.files import SampleFiles, sample_files
from evaluation.counters.names import COUNTERS, DIVERSITY, OF_A_CLIP
from jobs.stage import progress_bar
from rewards.base import Prompt
from rewards.decode import ClipFile, decode_ahead

BATCH_SIZE = 8  # clips; two batches are in memory
NUM_DECODERS = 2
SAVE_S = 30.0
_NEEDS = frozenset({"video", "audio"})


@dataclass(frozen=True, eq=False)
class CounterTable:
    """Counter-metrics of a run's generated samples.

    Attributes:
        values: one row per sample whose video is there, indexed by candidate_id; a float column for each of `COUNTERS`.
        notes: what was read, and what could not be measured, as texts without the name of the run.
    """

    values: pd.DataFrame
    notes: tuple[str, ...]


def read_counters(folder: Path) -> CounterTable:
    """Return the counter-metrics of the samples in a folder, measured from their media files or read from the cache.

    `counter_metrics.parquet` in the folder keeps the values; an interrupted call continues. A sample is measured again
    when the size or the time of one of its files changes.

    Args:
        folder: output_dir of pipeline.run, or the output of evaluation.run.
    """
    samples, num_absent = sample_files(folder)
    cache = CounterCache(folder)
    missing = [sample for sample in samples if sample not in cache]
    notes = [f"{len(missing)} clips read, {len(samples) - len(missing)} known from {CACHE_NAME}"]
    if num_absent:
        notes.append(f"{num_absent} of {num_absent + len(samples)} samples have no media file")
    if missing:
        notes += _measure(missing, samples, cache)
    return CounterTable(_frame([sample for sample in samples if sample in cache], cache), tuple(notes))


def _measure(missing: Sequence[SampleFiles], samples: Sequence[SampleFiles], cache: CounterCache) -> list[str]:
    """Measure the samples that the cache lacks and save it; return notes on what failed."""
    problems, saved = [], time.monotonic()
    known = len(samples) - len(missing)
    try:
        with progress_bar(f"counter-metrics of {cache.path.parent.name}", len(samples), known) as bar:
            for sample, found in _measured(missing):
                if isinstance(found, str):
                    problems.append(f"{sample.candidate_id} ({found})")
                else:
                    cache.add(sample, found)
                bar.update()
                if time.monotonic() - saved > SAVE_S:
                    cache.save(samples)
                    saved = time.monotonic()
    finally:
        cache.save(samples)
    notes = [f"{len(problems)} samples cannot be measured, such as {problems[0]}"] if problems else []
    return notes + ([] if cache.fault is None else [f"the counter-metrics are not kept: {cache.fault}"])


def _measured(samples: Sequence[SampleFiles]) -> Iterator[tuple[SampleFiles, ClipCounters | str]]:
    """Yield each sample with what was measured, or why it cannot be; the next clips are decoded meanwhile."""
    clips = (ClipFile(one.candidate_id, one.video, one.audio, Prompt(one.prompt_id, "")) for one in samples)
    batches = iter(lambda: list(itertools.islice(clips, BATCH_SIZE)), [])
    decoded = itertools.chain.from_iterable(decode_ahead(batches, _NEEDS, NUM_DECODERS))
    for sample, (_, clip) in zip(samples, decoded, strict=True):
        if isinstance(clip, str):
            yield sample, clip
            continue
        try:
            yield sample, measure_counters(clip, sample.latents)
        except ValueError as error:  # latents that cannot be read
            yield sample, str(error)


def _frame(samples: Sequence[SampleFiles], cache: CounterCache) -> pd.DataFrame:
    index = pd.Index([sample.candidate_id for sample in samples], name="candidate_id")
    values = np.array([cache.values(sample) for sample in samples]).reshape(len(samples), len(OF_A_CLIP))
    frame = pd.DataFrame(values, index=index, columns=list(OF_A_CLIP))
    groups = pd.factorize(pd.Series([sample.prompt_id for sample in samples], dtype=object))[0]
    for name in DIVERSITY:
        kind = name.removesuffix("_diversity")
        frame[name] = mean_distances([cache.features(sample, kind) for sample in samples], groups)
    return frame[[counter.name for counter in COUNTERS]]
