"""What a `config.json` beside weights may say, on a configuration with a field of every kind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import pytest
import torch

from core.config_file import read_fields
from rewards.weights import save_weights


@dataclass(frozen=True, kw_only=True)
class Tower:
    width: int
    kernels: tuple[int, ...] = (3, 3)

    def __post_init__(self):
        if self.width % 2:
            raise ValueError(f"width {self.width} is odd: make it even.")


@dataclass(frozen=True, kw_only=True)
class Model:
    tower: Tower = Tower(width=64)
    rate: float = 2.0
    frames: float | None = None
    pool: str = "last"
    norm: bool = True
    scale: Mapping[str, float] = field(default_factory=lambda: {"mean": 0.0})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "config.json"


def test_a_file_changes_what_it_names_and_leaves_the_rest(path):
    assert read_fields(path, Model()) == Model()
    path.write_text('{"tower": {"kernels": [5]}, "rate": 3, "frames": 8.5, "norm": false, "scale": {"mean": 1}}')
    read = read_fields(path, Model())
    assert read == Model(tower=Tower(width=64, kernels=(5,)), rate=3, frames=8.5, norm=False, scale={"mean": 1})
    path.write_text('{"frames": null}')
    assert read_fields(path, read) == Model(**{**vars(read), "frames": None})


def test_what_is_saved_is_read_back(tmp_path, path):
    config = Model(tower=Tower(width=8, kernels=(1, 2, 3)), frames=4.0)
    save_weights(tmp_path / "new", config, {"weight": torch.ones(2, 3).T})
    assert read_fields(tmp_path / "new" / "config.json", Model()) == config
    path.write_text(json.dumps(asdict(Model())))
    assert read_fields(path, config) == Model()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"towr": {}}', r"config\.json has an unknown key 'towr': did you mean 'tower'\?"),
        ('{"tower": {"zzz": 1}}', r"config\.json: tower has an unknown key 'zzz': did you mean '(width|kernels)'"),
        ('{"tower": 3}', r"config\.json: tower holds 3 where an object belongs"),
        ('{"tower": {"width": 64.0}}', r"config\.json: tower sets width to 64\.0: give a whole number"),
        ('{"tower": {"width": true}}', r"sets width to True: give a whole number"),
        ('{"tower": {"width": 63}}', r"config\.json: tower: width 63 is odd: make it even"),
        ('{"tower": {"kernels": 3}}', r"sets kernels to 3: give a list, of which each is a whole number"),
        ('{"tower": {"kernels": [3, "3"]}}', r"sets kernels to \[3, '3'\]: give a list"),
        ('{"rate": NaN}', r"sets rate to nan: give a number"),
        ('{"frames": "8"}', r"sets frames to '8': give a number or null"),
        ('{"pool": null}', r"sets pool to None: give a text"),
        ('{"norm": 1}', r"sets norm to 1: give true or false"),
        ('{"scale": [1]}', r"sets scale to \[1\]: give an object"),
        ("[1]", r"config\.json holds \[1\] where an object belongs"),
        ("[", r"config\.json is no JSON file .*fetch or write it again"),
        ("\ud800", r"config\.json is no JSON file"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_where_it_does_not(path, content, message):
    path.write_text(content, encoding="utf-8", errors="surrogatepass")  # half a pair is no UTF-8
    with pytest.raises(ValueError, match=message):
        read_fields(path, Model())
