"""Clips go to the buckets that the published code gives them; mistakes in a table are named."""

from __future__ import annotations

import json
from itertools import product

import pytest
import yaml

from model.data.buckets import ASPECT_KEYS, Bucket, BucketRule, BucketTable
from model.javisdit.network.sizes import image_size
from tests.model.javisdit.golden import ROOT, golden_path

RECIPES = ROOT / "recipes" / "javisdit_pp"
STAGE_3 = {
    resolution: {65: {"batch_size": first}, 81: {"batch_size": second, "time": 0.5}}
    for resolution, first, second in (("240p", 5, 4), ("360p", 2, 2), ("480p", 1, 1))
}


def published_table(stage, pixel_multiple=16):
    if stage == 3:
        return BucketTable.from_dict(STAGE_3, pixel_multiple)
    recipe = RECIPES / {1: "stage1_audio.yaml", 2: "stage2_sft.yaml"}[stage]
    return BucketTable.from_dict(yaml.safe_load(recipe.read_text(encoding="utf-8"))["buckets"], pixel_multiple)


def small_table(**rules):
    """One resolution of 64x64 pixels with the rules 33 (f33) and 17 (f17) frames."""
    return BucketTable({"64x64": {int(name[1:]): rule for name, rule in rules.items()}})


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_assignments_are_the_published_ones(stage):
    golden = json.loads(golden_path("media/bucket_assignment.json").read_text(encoding="utf-8"))[f"stage{stage}"]
    table = published_table(stage, pixel_multiple=1)
    assert table.num_buckets == golden["num_buckets"] == len(set(table))
    assert len(golden["samples"]) >= 60
    for num_frames, height, width, seed, bucket, size, batch_size in golden["samples"]:
        found = table.assign(num_frames, height, width, seed)
        assert (None if found is None else list(found)) == bucket
        if found is not None:
            assert [found.num_frames, *table.size(found)] == size
            assert table.rule(found).batch_size == batch_size


def test_a_row_is_drawn_anew_every_epoch_and_seeds_do_not_overlap():
    table = published_table(2)
    assert table.row_seed(0, 0) == 42
    assert table.row_seed(3, 2, seed=7) == 7 + 2 + 3 * 204
    found = [table.assign(300, 1080, 1920, table.row_seed(5, epoch)) for epoch in range(40)]
    assert found == [table.assign(300, 1080, 1920, table.row_seed(5, epoch)) for epoch in range(40)]
    assert len({bucket.num_frames for bucket in found if bucket}) == 4


def test_a_clip_fills_its_bucket():
    """No clip is stretched in time, and its picture by no more than the published 0.8 of the pixels allows."""
    table = published_table(2)
    for num_frames, (height, width), epoch in product((40, 65, 100), ((240, 426), (540, 960), (1280, 720)), range(20)):
        bucket = table.assign(num_frames, height, width, table.row_seed(0, epoch))
        if bucket is not None:
            nominal = image_size(bucket.resolution, ASPECT_KEYS[bucket.aspect])
            assert bucket.num_frames <= num_frames
            assert height * width >= 0.79 * nominal[0] * nominal[1]
            assert (nominal[0] < nominal[1]) == (height < width)


def test_probabilities_are_met_over_the_rows():
    table = small_table(f33=BucketRule(1, time=0.3), f17=BucketRule(1, keep=0.5))
    found = [table.assign(40, 64, 64, table.row_seed(row, 0)) for row in range(2000)]
    lengths = [None if bucket is None else bucket.num_frames for bucket in found]
    assert lengths.count(33) / 2000 == pytest.approx(0.3, abs=0.04)
    assert lengths.count(17) / 2000 == pytest.approx(0.35, abs=0.04)


def test_training_sizes_are_those_of_the_published_table():
    table = json.loads((ROOT / "tests/golden/model/size_table.json").read_text(encoding="utf-8"))
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    keys = {ratio: key for key, ratio in ASPECT_KEYS.items()}
    buckets = published_table(2)
    rows = [row for row in rows if row["resolution"] != "144p" and row["frames"] != 17]
    assert len(rows) == buckets.num_buckets
    for row in rows:
        bucket = Bucket(row["resolution"], row["frames"], keys[row["aspect"]])
        assert buckets.size(bucket) == (row["padded_height"], row["padded_width"])


def test_a_size_of_ones_own_takes_clips_of_any_shape_with_about_its_pixels():
    table = BucketTable.from_dict({"64x64": {33: {"batch_size": 4}, "17": {"batch_size": 8}}})
    assert table.num_buckets == 2
    assert table.assign(33, 64, 64, seed=0) == Bucket("64x64", 33, "1.00")
    assert table.assign(20, 40, 100, seed=0) == Bucket("64x64", 17, "1.00")
    assert table.assign(33, 57, 57, seed=0) is None
    assert table.size(Bucket("64x64", 33, "1.00")) == (64, 64)
    assert table.rule(Bucket("64x64", 33, "1.00")).batch_size == 4
    landscape = BucketTable.from_dict({"240x426": {33: {"batch_size": 1}}})
    assert [landscape.size(bucket) for bucket in landscape] == [(240, 432)]


def test_no_time_is_a_table_without_one():
    rule = {"batch_size": 2, "keep": 0.5}
    table = BucketTable.from_dict({"64x64": {33: rule | {"time": None}}})
    assert table.rule(Bucket("64x64", 33, "1.00")) == BucketRule(2, keep=0.5, time=None)
    assert list(table) == list(BucketTable.from_dict({"64x64": {33: rule}}))


def test_the_order_of_a_table_does_not_matter():
    rule = {"batch_size": 2}
    mapping = {"64x64": {17: rule, 33: rule}, "128x128": {17: rule}}
    turned = {"128x128": {17: rule}, "64x64": {33: rule, 17: rule}}
    assert list(BucketTable.from_dict(mapping)) == list(BucketTable.from_dict(turned))
    assert BucketTable.from_dict(mapping).assign(40, 128, 128, seed=0) == Bucket("128x128", 17, "1.00")


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"250p": {33: {"batch_size": 1}}}, "'250p'.*144p, 240p, 360p, 480p, or a size.*64x64"),
        ({"64x0": {33: {"batch_size": 1}}}, "'64x0'"),
        ({"240p": {34: {"batch_size": 1}}}, "240p: 34 .*use 33 or 37"),
        ({"240p": {1: {"batch_size": 1}}}, "240p: 1 is for images.*use 5 frames"),
        ({"240p": {"2s": {"batch_size": 1}}}, "240p: '2s' .*number of frames, such as 33"),
        ({"240p": {33: {"batch_sise": 1}}}, "240p: 33 .*'batch_sise'.*did you mean 'batch_size'.*keep, time"),
        ({"240p": {33: {"batch_size": 1, "keep": 1.2}}}, "240p: 33 has keep 1.2.*from 0 to 1"),
        ({"240p": {33: {"batch_size": 1, "time": -0.1}}}, "240p: 33 has time -0.1.*from 0 to 1"),
        ({"240p": {33: {"batch_size": 1, "keep": None}}}, "240p: 33 has keep None"),
        ({"240p": {33: 12}}, "240p: 33 is 12, .*number of clips in a batch.*{batch_size: 4}"),
        ({"240p": {33: {"keep": 0.5}}}, "240p: 33 .*number of clips in a batch"),
        ({"240p": {33: {"batch_size": 0}}}, "240p: 33 has batch_size 0.*1 or more"),
        ({"240p": {33: {"batch_size": 1.5}}}, "batch_size 1.5"),
        ({"240p": {33: {"batch_size": True}}}, "240p: 33 has batch_size True: give a number of clips, 1 or more"),
        ({"240p": {33: {"batch_size": 1}, "33": {"batch_size": 2}}}, "'240p' has 33 and '33', .*remove one"),
        ({"240p": 33}, "'240p' is 33, which holds no buckets.*give resolutions"),
        ({"240p": {}}, "holds no buckets"),
        ({}, "holds no buckets"),
    ],
)
def test_mistakes_in_a_table_are_named(mapping, message):
    with pytest.raises(ValueError, match=message):
        BucketTable.from_dict(mapping)
