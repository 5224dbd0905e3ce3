from __future__ import annotations

import pytest

from rewards.weights import find_weights


def test_weights_are_found_by_their_published_name_in_a_folder(tmp_path):
    (tmp_path / "imagebind_huge.pth").touch()
    assert find_weights(str(tmp_path), "imagebind", "imagebind_huge.pth") == tmp_path / "imagebind_huge.pth"


def test_a_file_of_another_name_can_be_given_itself(tmp_path):
    (tmp_path / "mine.safetensors").touch()
    path = tmp_path / "mine.safetensors"
    assert find_weights(str(path), "imagebind", "imagebind_huge.pth") == path


@pytest.mark.parametrize("path", [None, "nowhere"])
def test_missing_weights_come_with_the_command_that_fetches_them(path):
    with pytest.raises(ValueError, match=r"model\.fetch --components synchformer"):
        find_weights(path, "synchformer", "synchformer_state_dict.pth")


@pytest.mark.parametrize("path", [None, "nowhere"])
def test_missing_weights_of_a_reward_of_others_are_theirs_to_get(path):
    with pytest.raises(ValueError, match=r"'sharpness'.*the folder that holds it as 'sharpness\.pth'") as caught:
        find_weights(path, "sharpness", "sharpness.pth")
    assert "model.fetch" not in str(caught.value)
