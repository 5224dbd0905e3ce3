from __future__ import annotations

import pytest

from synthetic import CaptionAttributes, caption, parse_caption, scene_from_seed
from synthetic.captions import PHRASINGS, vocabulary

SCENES = [scene_from_seed(seed) for seed in range(300)]


def attributes_of(scene):
    return CaptionAttributes(
        scene.color, scene.size, scene.background, scene.num_impacts, scene.pitch, scene.material, scene.side
    )


@pytest.mark.parametrize("phrasing", range(len(PHRASINGS)))
def test_parsing_inverts_every_phrasing(phrasing):
    for scene in SCENES:
        text = caption(scene, phrasing)
        assert parse_caption(text) == attributes_of(scene)
        assert parse_caption(f"  {text.upper()}. ") == attributes_of(scene)


def test_captions_are_short_lower_case_and_of_a_closed_vocabulary():
    words = set(vocabulary())
    assert len(words) < 120
    assert len(PHRASINGS) >= 6
    for scene in SCENES:
        for phrasing in range(len(PHRASINGS)):
            text = caption(scene, phrasing)
            assert len(text.split()) <= 32
            assert set(text.split()) <= words


def test_the_seed_chooses_the_phrasing():
    texts = {caption(scene).split()[0] for scene in SCENES}
    assert len(texts) > 4
    assert caption(SCENES[3]) == caption(SCENES[3])


def test_part_captions_say_only_what_they_say():
    assert parse_caption("A red ball!") == CaptionAttributes(color="red")
    assert parse_caption("the ball bounces twice") == CaptionAttributes(num_impacts=2)
    assert parse_caption("a red ball and a blue ball on black") == CaptionAttributes(background="black")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n\t",
        "a red car drives to the left past a high bell tower",
        "a dog chases a small red ball on gray asphalt",
        "a red drum",
        "Ein roter Ball springt zweimal nach rechts",
        "\u0643\u0631\u0629 \u062d\u0645\u0631\u0627\u0621 ball \u202e",
        "\U0001f534 ball \ud83d \x00 <b>'\"",
        "ball" * 10_000,
        "\u0130\u1e9e\ufb01 a\u0301",
    ],
)
def test_foreign_text_says_nothing(text):
    assert parse_caption(text) == CaptionAttributes()
    assert parse_caption(text).num_stated == 0
