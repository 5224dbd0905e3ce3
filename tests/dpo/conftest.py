from __future__ import annotations

import pytest
import torch

from tests.dpo.good_clips import prepare_latents


@pytest.fixture(autouse=True)
def few_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def good_latents(tmp_path_factory):
    """The folder of prepared clips of `tests.dpo.good_clips`; five scenes of Bounce."""
    return prepare_latents(tmp_path_factory.mktemp("good"))
