from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch

from media import AVClip, MediaError, probe, read_clip, write_clip, write_wav
from model.data.batches import BucketBatchSampler, RowKey
from model.data.buckets import BucketTable
from model.data.clip_encoder import ClipEncoder
from model.data.clip_samples import ClipDataset, ClipForm
from model.data.clip_table import fingerprint, read_clips
from model.data.on_the_fly import OnTheFlyClips
from model.javisdit.pipeline import JointAVPipeline
from synthetic.make import MakeConfig, make
from synthetic.measure_sound import measure_sound
from synthetic.render import render_clip
from synthetic.scene import DURATION_S, scene_from_seed
from tests.golden_files import real_clips

TABLE = BucketTable.from_dict({"64x64": {33: {"batch_size": 4}, 17: {"batch_size": 8}}})


@pytest.fixture(scope="module")
def bounce(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bounce")
    make(MakeConfig(output=folder, num_clips=4))
    return folder


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    """Two scenes, one after the other, and when something hits the floor in them."""
    folder = tmp_path_factory.mktemp("long")
    scenes = [scene_from_seed(seed) for seed in (11, 12)]
    first, second = (render_clip(scene) for scene in scenes)
    clip = AVClip(
        np.concatenate([first.video, second.video]),
        first.fps,
        np.concatenate([first.audio, second.audio], axis=1),
        first.sample_rate,
    )
    write_clip(clip, folder / "long.mp4")
    impacts = [time + DURATION_S * index for index, scene in enumerate(scenes) for time in scene.impact_times]
    return folder / "long.mp4", impacts


def write_csv(path, header, *rows):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def dataset_of(path, *rows, header="path,text", form=None, table=TABLE):
    return ClipDataset(read_clips(write_csv(path, header, *rows)), table, form)


def test_published_table_is_read_as_it_is(tmp_path):
    table = write_csv(
        tmp_path / "train.csv",
        "id,path,text,audio_path,audio_text,num_frames,height,width,fps,aes",
        '007,v/a.mp4,"a dog, barking",a/a.wav,barking,81,480,854,16.0,5.5',
        "008,v/b.mp4,a cat,v/b.mp4,,,,,,",
    )
    first, second = read_clips(table)
    assert (first.row, first.clip_id, first.prompt, first.audio_prompt) == (0, "007", "a dog, barking", "barking")
    assert (first.video_path, first.audio_path) == (tmp_path / "v/a.mp4", tmp_path / "a/a.wav")
    assert (first.num_frames, first.height, first.width, first.fps) == (81, 480, 854, 16.0)
    assert second.audio_path is None  # the video's own
    assert (second.num_frames, second.problem) == (None, None)


def test_the_same_rows_as_jsonl_and_in_our_names(bounce, tmp_path):
    ours = read_clips(bounce / "prompts.parquet")
    assert ours[2].clip_id == "bounce-0000002"
    assert ours[2].audio_path == bounce / "clips" / "bounce-0000002.wav"
    lines = [json.dumps({"id": 7, "path": "a.mp4", "text": "x", "height": 64, "num_frames": None})]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    [clip] = read_clips(tmp_path / "t.jsonl")
    assert (clip.clip_id, clip.height, clip.num_frames) == ("7", 64, None)


def test_rows_that_are_no_clips_keep_their_place_and_say_why(tmp_path):
    rows = ["a,a.mp4,,33", "b,,text,33", "c,c.mp4,text,many", "d,d.mp4,text,33"]
    clips = read_clips(write_csv(tmp_path / "t.csv", "id,path,text,num_frames", *rows))
    assert "no caption" in clips[0].problem
    assert "no media file" in clips[1].problem
    assert "num_frames is 'many'" in clips[2].problem
    assert clips[3].problem is None


def test_folder_with_captions_beside_the_files(bounce, tmp_path):
    for name in ("a", "b"):
        for suffix in (".mp4", ".wav"):
            (tmp_path / f"{name}{suffix}").symlink_to(bounce / "clips" / f"bounce-0000000{suffix}")
    (tmp_path / "a.txt").write_text("a ball\n")
    first, second = read_clips(tmp_path)
    assert (first.clip_id, first.prompt, first.audio_path.name) == ("a.mp4", "a ball", "a.wav")
    assert "no caption" in second.problem


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("path,num_frames", ["a.mp4,33"], "no column 'prompt'"),
        ("text", ["hello"], "no column 'video_path'"),
        ("path,text", [], "holds no clips"),
        ("path,text", ["a.mp4,x", "a.mp4,y"], "row 1: the clip 'a.mp4' stands in row 0"),
    ],
)
def test_tables_that_are_none_are_refused(tmp_path, header, rows, message):
    with pytest.raises(ValueError, match=message):
        read_clips(write_csv(tmp_path / "t.csv", header, *rows))


def test_what_is_no_table_says_what_to_give_in_its_place(tmp_path):
    for name, message in (("t.xlsx", "is no table of clips"), ("none.csv", "does not exist")):
        with pytest.raises(ValueError, match=rf"{name} {message}.*: give a \.csv, .*, or a folder of media files\."):
            read_clips(tmp_path / name)
    (tmp_path / "t.jsonl").write_text('{"file": "a.mp4", "caption": "x", "tags": [1]}\n')
    with pytest.raises(ValueError, match=r"no column 'video_path' or 'path' \(it has: file, caption, tags\)"):
        read_clips(tmp_path / "t.jsonl")


def test_fingerprint_moves_with_the_table_and_changes_with_a_caption(tmp_path):
    prints = []
    for name, text in (("x", "ball"), ("y", "ball"), ("z", "cube")):
        (tmp_path / name).mkdir()
        table = write_csv(tmp_path / name / "t.csv", "path,text", f"a.mp4,{text}")
        prints.append(fingerprint(read_clips(table), table))
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("sound", ["wav", "mp4"])
def test_sound_is_cut_to_the_frames_that_are_shown(tmp_path, long_clip, sound):
    path, impacts = long_clip
    row = f"{path},two balls,{path.with_suffix(f'.{sound}')}"
    dataset = dataset_of(tmp_path / "t.csv", row, header="path,text,audio_path")
    whole = read_clip(path).video.astype(np.float32) / 127.5 - 1
    starts = set()
    for epoch in range(3):
        sample = dataset[RowKey(0, epoch)]
        assert sample.video.shape == (33, 64, 64, 3)
        assert sample.waveform.shape == (33_000,)
        errors = [np.abs(whole[s : s + 33] - sample.video.numpy()).max() for s in range(34)]
        start = int(np.argmin(errors))
        assert errors[start] < 1e-5
        starts.add(start)
        expected = [time - start / 16 for time in impacts if 0.1 < time - start / 16 < DURATION_S - 0.1]
        heard = [time for time in measure_sound(sample.waveform.numpy()).impacts if 0.1 < time < DURATION_S - 0.1]
        assert len(expected) >= 1
        assert heard == pytest.approx(expected, abs=0.03)
    assert len(starts) > 1


def test_windows_do_not_depend_on_who_reads_them(tmp_path, long_clip):
    rows = [f"c{index},{long_clip[0]},balls" for index in range(3)]
    dataset = dataset_of(tmp_path / "t.csv", *rows, header="id,path,text")
    alone = dataset_of(tmp_path / "u.csv", rows[1], header="id,path,text")
    samples = [dataset[RowKey(row, 0)] for row in (2, 1, 0)]
    assert torch.equal(samples[1].video, alone[RowKey(0, 0)].video)
    assert not torch.equal(samples[0].video, samples[1].video)


def test_stereo_at_the_models_rate_is_mixed_not_interleaved(tmp_path, bounce):
    times = np.arange(33_000) / 16_000
    stereo = np.stack([np.sin(2 * np.pi * 400 * times), np.zeros(33_000)]).astype(np.float32) * 0.5
    source = read_clip(bounce / "clips" / "bounce-0000000.mp4")
    write_clip(AVClip(source.video, source.fps, stereo, 16_000), tmp_path / "stereo.mp4", wav=False)
    waveform = dataset_of(tmp_path / "t.csv", "stereo.mp4,tone")[RowKey(0, 0)].waveform.numpy()
    assert np.abs(np.fft.rfft(waveform)).argmax() / 2.0625 == pytest.approx(400, abs=1)


def test_sound_alone(tmp_path, bounce):
    rows = [f"a,{bounce}/clips/bounce-0000000.mp4,,a ball,a bell", f"b,,{bounce}/clips/bounce-0000001.wav,a ball,"]
    form = ClipForm(audio_only=True)
    dataset = dataset_of(tmp_path / "t.csv", *rows, header="id,path,audio_path,text,audio_text", form=form)
    for row, prompt in enumerate(("a bell", "a ball")):
        sample = dataset[RowKey(row, 0)]
        assert (sample.video, sample.prompt, sample.num_frames, sample.fps) == (None, prompt, 33, 24.0)
        assert sample.waveform.shape == (22_000,)  # 33 frames at 24 fps


def test_bad_clips_name_themselves(tmp_path, bounce):
    whole = (bounce / "clips" / "bounce-0000000.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[:3000])
    write_wav(tmp_path / "sound.wav", np.zeros((1, 4000), np.float32), 16_000)
    clip = read_clip(bounce / "clips" / "bounce-0000000.mp4")
    write_clip(AVClip(clip.video[:9], clip.fps, clip.audio[:, :9000], 16_000), tmp_path / "short.mp4", wav=False)
    rows = ["cut.mp4,x,", "short.mp4,x,", "none.mp4,x,", "sound.wav,x,", "short.mp4#,,"]
    dataset = dataset_of(tmp_path / "t.csv", *rows, header="path,text,num_frames")
    for row, reason in enumerate(("truncated", "has 9 frames", "cannot be read", "no video", "no caption")):
        with pytest.raises(MediaError, match=reason):
            dataset[RowKey(row, 0)]
    lying = dataset_of(tmp_path / "u.csv", "short.mp4,x,64,64,40", header="path,text,height,width,num_frames")
    with pytest.raises(MediaError, match="num_frames are wrong"):
        lying[RowKey(0, 0)]


def test_real_clips_of_any_rate_and_size(tmp_path):
    paths = [path for path in real_clips() if probe(path).has_audio]
    assert paths
    table = BucketTable.from_dict({"48x80": {33: {"batch_size": 2}}})
    dataset = dataset_of(tmp_path / "t.csv", *(f"{path},x" for path in paths), table=table)
    for row in range(len(paths)):
        sample = dataset[RowKey(row, 0)]
        assert (sample.video.shape, sample.waveform.shape) == ((33, 48, 80, 3), (33_000,))
        assert sample.waveform.std() > 1e-4


@pytest.fixture(scope="module")
def encoder():
    return ClipEncoder(JointAVPipeline.from_pretrained("tiny"))


@pytest.fixture
def on_the_fly(tmp_path, bounce, encoder):
    """Four clips, the second of which is cut off although the table tells its size."""
    (tmp_path / "cut.mp4").write_bytes((bounce / "clips" / "bounce-0000001.mp4").read_bytes()[:3000])
    files = [bounce / "clips" / f"bounce-000000{index}.mp4" for index in range(4)]
    rows = [f"c{index},{'cut.mp4' if index == 1 else file},a ball,33,64,64" for index, file in enumerate(files)]
    rows.append("c4,none.mp4,a ball,,,")
    dataset = dataset_of(tmp_path / "t.csv", *rows, header="id,path,text,num_frames,height,width")
    return OnTheFlyClips(dataset, encoder, tmp_path / "run" / "failures.jsonl")


def test_clips_encoded_as_they_come(on_the_fly, encoder):
    config = encoder.pipeline.transformer.config
    on_the_fly.check_network(config)
    labels = on_the_fly.labels(0)
    assert labels[4] is None
    assert {label.num_frames for label in labels[:4]} == {33}
    sampler = BucketBatchSampler(on_the_fly.labels, on_the_fly.batch_size)
    assert [len(batch) for batch in sampler] == [4]
    worker = pickle.loads(pickle.dumps(on_the_fly))
    items = on_the_fly.collator(None)([worker[RowKey(row, 0)] for row in (0, 2, 3)])
    encoded = on_the_fly.encode(items)
    assert [one.clip_id for one in encoded] == ["c0", "c2", "c3"]
    sizes = {name: latents.shape[1:] for name, latents in encoded[0].latents.items()}
    assert on_the_fly.num_tokens(labels[0], config) == config.num_tokens(sizes)
    [alone] = on_the_fly.encode([items[1]])
    torch.testing.assert_close(alone.latents["video"], encoded[1].latents["video"], rtol=1e-4, atol=1e-4)


def test_unreadable_clip_is_noted_once_and_replaced_by_the_next(on_the_fly):
    for _ in range(2):
        assert on_the_fly[RowKey(1, 0)].clip_id == "c2"
    lines = [json.loads(line) for line in on_the_fly.failures.read_text().splitlines()]
    assert [line["clip_id"] for line in lines] == ["c4", "c1"]
    assert "truncated" in lines[1]["reason"]
    again = OnTheFlyClips(on_the_fly.clips, on_the_fly.encoder, on_the_fly.failures)
    assert again[RowKey(1, 1)].epoch == 1
    assert len(on_the_fly.failures.read_text().splitlines()) == 2
