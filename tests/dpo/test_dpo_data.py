import dataclasses

import pytest
import torch
from datasets import Dataset, Features
from dpo_helpers import identical_pairs, make_dataset, make_rows, tiny_model

from dpo.data import PairCollator, PairDataset
from dpo.prepare import dataset_features
from dpo.trainer import noisy_pairs
from model.batches import RowKey
from model.flow import shift_timesteps
from model.transformer import JointDiT
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
        PairDataset(Dataset.from_list([{"prompt_id": "a", "chosen_seed": 1}]), None)
    with pytest.raises(ValueError, match="holds no training dataset"):
        PairDataset.load(tmp_path)
    rows = make_rows(3)
    rows[1]["rejected_video_latents"].pop()
    with pytest.raises(ValueError, match=r"'p1' has 191 values in rejected_video_latents, its shape columns say 192"):
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
