from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from datasets import Dataset, Features

from dpo.data.dataset import PairCollator, PairDataset
from dpo.data.schema import dataset_features
from dpo.loss.av_dpo import av_dpo_loss
from dpo.train.trainer import noisy_pairs
from model.data.batches import RowKey
from model.data.latent_dataset import batch_sampler
from model.flow import shift_timesteps
from model.javisdit.network.transformer import JointDiT
from model.train.arguments import JointTrainingArguments
from tests.dpo.dpo_helpers import identical_pairs, make_dataset, make_rows, tiny_model
from tests.small_latents import AUDIO_SHAPE, TEXT_LEN, VIDEO_SHAPE


def collate(dataset, keys, seed=0, **settings):
    return PairCollator(seed, dataset.negative_text, **settings)([dataset[key] for key in keys])


def test_winner_and_loser_share_timestep_noise_and_text():
    dataset = make_dataset(make_rows(8))
    batch = collate(dataset, range(8), text_dropout=0.5)
    assert 0 < batch["text_dropped"].sum() < 8
    arguments, target = noisy_pairs(batch)
    for name in ("timestep", "text", "text_mask"):
        winner, loser = arguments[name].chunk(2)
        assert torch.equal(winner, loser)
    for name in ("video", "audio"):
        winner, loser = (target[name] + batch[name]).chunk(2)  # noise = target + data
        torch.testing.assert_close(winner, loser)
        assert not torch.equal(*batch[name].chunk(2))


def test_identical_pair_gives_identical_network_inputs():
    dataset = make_dataset(identical_pairs(make_rows(6)))
    arguments, target = noisy_pairs(collate(dataset, range(6), text_dropout=0.5))
    for value in [*target.values(), *(v for v in arguments.values() if isinstance(v, torch.Tensor))]:
        assert torch.equal(*value.chunk(2))


def margins(rows, settings=None):
    """Return modality -> margin of each pair under two networks, as the trainer computes it."""
    dataset = make_dataset(rows)
    arguments, target = noisy_pairs(collate(dataset, range(len(rows)), text_dropout=0.5))
    with torch.no_grad():
        policy, reference = (tiny_model(seed)(**arguments)._asdict() for seed in (0, 1))
    metrics = av_dpo_loss(policy, reference, target, beta=1.0).metrics
    return {name: metrics[f"rewards/margins/{name}"] for name in ("video", "audio")}


def swapped(rows):
    names = {f"chosen_{m}_latents": f"rejected_{m}_latents" for m in ("video", "audio")}
    return [row | {a: row[b] for a, b in names.items()} | {b: row[a] for a, b in names.items()} for row in rows]


def test_swapping_the_members_of_pairs_flips_the_sign_and_equal_members_have_none():
    rows = make_rows(2)
    for name, margin in margins(rows).items():
        assert (margin != 0).all()
        torch.testing.assert_close(margins(swapped(rows))[name], -margin)
    for margin in margins(identical_pairs(rows[:1])).values():
        assert margin.item() == 0.0


def test_pairs_of_one_prompt_have_draws_of_their_own():
    rows = make_rows(3)
    rows[1]["prompt_id"] = rows[0]["prompt_id"]
    batch = collate(make_dataset(rows), range(3))
    assert (batch["pair_id"], batch["prompt_id"]) == (["p0", "p1", "p2"], ["p0", "p0", "p2"])
    assert not torch.equal(batch["video_noise"][0], batch["video_noise"][1])
    assert batch["timestep"][0] != batch["timestep"][1]


def test_a_pairs_draws_do_not_depend_on_the_rows_around_it():
    rows = make_rows(4)
    whole, part = make_dataset(rows), make_dataset(rows[2:])
    for name in ("video_noise", "audio_noise", "timestep", "text"):
        assert torch.equal(collate(whole, [2, 3])[name], collate(part, [0, 1])[name])


def test_weights_are_one_or_follow_the_margin_with_mean_one():
    rows = [row | {"margin": margin} for row, margin in zip(make_rows(4), (0.5, 1.0, 2.5, 4.0), strict=True)]
    dataset = make_dataset(rows)
    assert collate(dataset, range(4))["weight"].tolist() == [1.0] * 4
    weights = collate(dataset, range(4), mean_margin=dataset.mean_margin())["weight"]
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights, torch.tensor([0.25, 0.5, 1.25, 2.0]))
    assert weights.mean() == 1.0


@pytest.mark.parametrize("margin", [None, 0.0, -0.3, float("nan")])
def test_margins_that_give_no_weight_are_refused(margin):
    rows = make_rows(2)
    rows[1]["margin"] = margin
    assert np.isnan(make_dataset(rows)[1].margin) == (margin is None or margin != margin)
    with pytest.raises(ValueError, match=r"pair 'p1' has margin .* turn margin_weighting off"):
        make_dataset(rows).mean_margin()


def test_batches_are_of_one_shape_and_as_many_pairs_as_tokens_allow(tmp_path):
    short = make_rows(9, video_shape=(4, 2, 4, 4))
    rows = make_rows(5) + [row | {"pair_id": f"s{i}", "num_frames": 5} for i, row in enumerate(short)]
    dataset, config = make_dataset(rows), tiny_model().config
    tokens = {label: dataset.num_tokens(label, config) for label in set(dataset.shapes)}
    assert sorted(tokens.values()) == [2 * (2 * 4 + 4 * 2), 2 * (3 * 4 + 4 * 2)]  # two clips; video and audio tokens

    def batches(**settings):
        args = JointTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **settings)
        sampler = batch_sampler(dataset, args, config)
        return [[key.row for key in batch] for batch in sampler]

    made = batches(tokens_per_batch=130)
    assert sorted(row for batch in made for row in batch) == list(range(14))
    assert sorted(map(len, made)) == [1, 2, 3, 4, 4]  # 130 tokens are 3 of the long pairs or 4 of the short ones
    for batch in made:
        [label] = {dataset.shapes[row] for row in batch}
        assert len(batch) * tokens[label] <= 130
    assert {len(batch) for batch in batches(tokens_per_batch=1)} == {1}  # at least one pair
    assert max(map(len, batches(per_device_train_batch_size=4))) == 4


def test_draws_do_not_depend_on_the_batch_but_on_seed_and_epoch():
    dataset = make_dataset()
    together, alone = collate(dataset, [0, 1, 2]), collate(dataset, [1])
    assert torch.equal(together["video_noise"][1], alone["video_noise"][0])
    assert torch.equal(together["timestep"][1:2], alone["timestep"])
    for other in (collate(dataset, [RowKey(1, epoch=1)]), collate(dataset, [1], seed=1), collate(dataset, [2])):
        assert not torch.equal(other["video_noise"], alone["video_noise"])
        assert not torch.equal(other["timestep"], alone["timestep"])


def test_dropped_caption_becomes_the_negative_prompt():
    dataset = make_dataset(make_rows(12))
    batch = collate(dataset, range(12), text_dropout=0.5)
    for i, dropped in enumerate(batch["text_dropped"].tolist()):
        expected = dataset.negative_text[:3] if dropped else dataset[i].text
        length = len(expected)
        torch.testing.assert_close(batch["text"][i, :length], expected)
        assert batch["text_mask"][i].tolist() == [True] * length + [False] * (TEXT_LEN - length)
        assert (batch["text"][i, length:] == 0).all()


def test_text_dropout_happens_as_often_as_asked():
    dataset = make_dataset(make_rows(1))
    keys = [RowKey(0, epoch) for epoch in range(1000)]
    assert collate(dataset, keys, text_dropout=0.1)["text_dropped"].float().mean().item() == pytest.approx(
        0.1, abs=0.03
    )


def test_timesteps_are_logit_normal_and_shifted_for_the_clip():
    dataset = make_dataset(make_rows(1, height=512, width=512, num_frames=1))
    keys = [RowKey(0, epoch) for epoch in range(2000)]
    timestep = collate(dataset, keys, shift_scale=5.0)["timestep"]
    median = shift_timesteps(torch.tensor(500.0), 512, 512, 1, 5.0)
    assert timestep.median().item() == pytest.approx(median.item(), abs=15)
    assert 0 < timestep.min() < timestep.max() < 1000


def test_rows_come_back_in_their_shapes():
    rows = make_rows(2)
    pair = make_dataset(rows)[1]
    assert pair.chosen["video"].shape == VIDEO_SHAPE
    assert pair.rejected["audio"].shape == AUDIO_SHAPE
    expected = torch.tensor(rows[1]["rejected_audio_latents"]).half().float().view(AUDIO_SHAPE)
    assert torch.equal(pair.rejected["audio"], expected)


def test_dropout_without_a_negative_text_is_refused():
    with pytest.raises(ValueError, match="set text_dropout to 0"):
        PairCollator(0, None, text_dropout=0.1)
    assert PairCollator(0, None, text_dropout=0.0)([make_dataset()[0]])["text"].shape[1] == 2


def test_zero_pairs_foreign_tables_and_damaged_rows_are_refused(tmp_path):
    features = Features(dataset_features())
    with pytest.raises(ValueError, match="no pairs"):
        PairDataset(Dataset.from_dict({name: [] for name in features}, features=features), None)
    with pytest.raises(ValueError, match="is it the pairs dataset"):
        PairDataset(Dataset.from_list([{"pair_id": "a", "prompt_id": "a", "chosen_seed": 1}]), None)
    with pytest.raises(ValueError, match="holds no training dataset"):
        PairDataset.load(tmp_path)
    rows = make_rows(3)
    rows[1]["rejected_video_latents"].pop()
    with pytest.raises(ValueError, match=r"'p1' has 191 values in rejected_video_latents, .* shape columns give 192"):
        make_dataset(rows)


def test_non_finite_values_are_found_and_named():
    for column, name in (("chosen_video_latents", "chosen video"), ("text_embeds", "text")):
        rows = make_rows(3)
        rows[2][column][0] = float("inf")
        with pytest.raises(ValueError, match=f"'p2' .row 2. has non-finite values in its {name}"):
            make_dataset(rows).check_finite()


def test_data_for_another_text_encoder_is_refused():
    other = JointDiT(dataclasses.replace(tiny_model().config, text_dim=99))
    with pytest.raises(ValueError, match="12 text channels, the model expects 99"):
        make_dataset().check_network(other)
