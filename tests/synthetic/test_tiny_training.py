"""Training of the tiny preset: it learns, and goes on exactly where it stopped."""

import torch

from synthetic.bootstrap_codecs import train_audio_codec
from synthetic.bootstrap_model import LatentSet, train_transformer
from synthetic.bootstrap_text import train_text_encoder
from synthetic.captions import PHRASINGS, caption
from synthetic.grade import Grade
from synthetic.muon import orthogonalize
from synthetic.scene import scene_from_seed


def test_orthogonalize_evens_out_singular_values():
    matrix = torch.randn(24, 60, generator=torch.Generator().manual_seed(0))
    for shaped in (matrix, matrix.T):
        values = torch.linalg.svdvals(orthogonalize(shaped))
        assert values.min() > 0.6
        assert values.max() < 1.3


def test_text_encoder_tells_captions_apart():
    torch.manual_seed(0)
    encoder = train_text_encoder(3)
    texts = [caption(scene_from_seed(1), phrasing) for phrasing in range(len(PHRASINGS))]
    embeddings = encoder(texts)
    assert embeddings.embeds.shape == (len(PHRASINGS), 40, 64)
    assert not embeddings.mask.all()  # a caption is shorter than the text length
    unknown = encoder.tokenizer("zeppelin", return_tensors="pt").input_ids[0, 0]
    assert unknown == encoder.tokenizer.unk_token_id


def test_codec_training_sets_the_latent_statistics():
    torch.manual_seed(0)
    codec = train_audio_codec(1)
    assert all(std != 1.0 for std in codec.config.latents_std)


def test_a_resumed_training_equals_an_undisturbed_one(tmp_path):
    torch.manual_seed(0)
    encoder = train_text_encoder(1)
    generator = torch.Generator().manual_seed(1)
    latents = LatentSet(
        torch.randn(64, 8, 9, 8, 8, generator=generator).half(), torch.randn(64, 8, 52, 16, generator=generator).half()
    )
    whole = train_transformer(latents, encoder, "", 2, tmp_path / "whole.pt")
    state = torch.load(tmp_path / "whole.pt", weights_only=True)
    assert state["step"] == 2
    train_transformer(latents, encoder, "", 2, tmp_path / "parts.pt", stop_after=1)
    resumed = train_transformer(latents, encoder, "", 2, tmp_path / "parts.pt")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_the_interval_of_a_share_holds_it():
    grade = Grade("color", 60, 100)
    low, high = grade.interval
    assert low < 0.6 < high
    assert round(low, 3) == 0.502
    assert round(high, 3) == 0.691
