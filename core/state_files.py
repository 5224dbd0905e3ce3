"""Weight files, read one tensor at a time: safetensors or torch files, whole or in shards. No pickle is ever executed.

Memory: a reader maps at most `CHUNK_BYTES` of a file (or one larger tensor) at once, so that filling a module costs
little more than the module itself. Torch files from before torch 1.6 cannot be mapped and are read whole.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from core.atomic import atomic_path, atomic_write_text
from core.checkpoint_kinds import looks_like

CHUNK_BYTES = 32 * 2**20
SHARD_BYTES = 1024 * 10**6  # as in the release's checkpoints
SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
NUM_NAMES_SHOWN = 3


class StateFiles:
    """The named tensors of a checkpoint.

    Args:
        path: a `.safetensors`, `.bin`, `.pth` or `.pt` file, or a folder with an index and its shards, or with files of
            one of these kinds (the first kind present, in this order).

    Raises:
        ValueError: when there is no such file, a shard is missing, or a file holds anything but named tensors.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.files = _find_files(self.path)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor by name, read without the data.

        Raises:
            ValueError: when two files hold a tensor of the same name.
        """
        shapes: dict[str, tuple[int, ...]] = {}
        for file in self.files:
            headers = _headers(file)
            if twice := shapes.keys() & headers.keys():
                raise ValueError(
                    f"{file.name} and another file in {self.path} both hold {min(twice)}: leave one checkpoint there, "
                    "or give the file itself."
                )
            shapes |= {name: shape for name, (shape, _) in headers.items()}
        return shapes

    def tensors(
        self, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield every (name, tensor), copied from the file; floating tensors are cast to `dtype` unless it is None."""
        assert self.shapes  # no name twice
        for file in self.files:
            for names in _chunks(_headers(file)):
                for name, tensor in _read(file, names):
                    wanted = dtype if tensor.is_floating_point() else None
                    yield name, tensor.to(device=device, dtype=wanted or tensor.dtype, copy=True)


def fill_module(
    module: nn.Module, tensors: Iterable[tuple[str, Tensor]], source: str, names: Collection[str] | None = None
) -> None:
    """Replace the parameter or buffer of each name by the tensor; `module` may be on the meta device.

    Args:
        source: name of the checkpoint in error messages.
        names: names in the checkpoint itself, where `tensors` are renamed or made from them.

    Raises:
        ValueError: for missing, surplus or misshapen tensors; it names the first few and the kind they look like.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found: dict[str, tuple[int, ...]] = {}
    for name, tensor in tensors:
        found[name] = tuple(tensor.shape)
        if wanted.get(name) == found[name]:
            _replace(module, name, tensor)
    if error := misfit_error(wanted, found, source, type(module).__name__, names or found):
        raise error


def misfit_error(
    wanted: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
    source: str,
    target: str,
    names: Collection[str],
) -> ValueError | None:
    """Return the error for tensors that do not fit, or None; the checkpoint's kind is guessed from `names`."""
    faults = {
        "missing": [name for name in wanted if name not in found],
        "surplus": [name for name in found if name not in wanted],
        "misshapen": [
            f"{name} is {shape}, not {wanted[name]}"
            for name, shape in found.items()
            if name in wanted and shape != wanted[name]
        ],
    }
    counts = "; ".join(f"{len(some)} {kind} ({_first(some)})" for kind, some in faults.items() if some)
    if not counts:
        return None
    return ValueError(
        f"{source} does not fit {target}: {counts}. It looks like {looks_like(names)}; "
        "give the checkpoint, or the configuration, that belongs to this one."
    )


def write_shards(state: dict[str, Tensor], folder: Path, dtype: torch.dtype | None, shard_bytes: int) -> None:
    """Write the release's layout: `pytorch_model-00001.bin`, ... `pytorch_model.bin.index.json`; each atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {name: tensor.numel() * (dtype or tensor.dtype).itemsize for name, tensor in state.items()}
    weight_map: dict[str, str] = {}
    for number, names in enumerate(_groups(sizes, shard_bytes), start=1):
        file_name = f"pytorch_model-{number:05d}.bin"
        shard = {name: state[name].detach().to("cpu", dtype, copy=True).contiguous() for name in names}
        with atomic_path(folder / file_name) as path, open(path, "wb") as file:  # torch refuses a dot-name as a path
            torch.save(shard, file)
        weight_map |= dict.fromkeys(names, file_name)
    index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
    atomic_write_text(folder / "pytorch_model.bin.index.json", json.dumps(index, indent=2) + "\n")


def _find_files(path: Path) -> list[Path]:
    if path.is_file() and path.suffix in SUFFIXES:
        return [path]
    if path.is_dir():
        if indices := sorted(path.glob("*.index.json"), key=lambda index: "safetensors" not in index.name):
            return _indexed_files(indices[0])
        for suffix in SUFFIXES:
            if files := sorted(path.glob(f"*{suffix}")):
                return files
    raise ValueError(f"{path} holds no weights: give a {', '.join(SUFFIXES)} file or a folder with some.")


def _indexed_files(index: Path) -> list[Path]:
    weight_map = json.loads(index.read_text(encoding="utf-8")).get("weight_map")
    if not weight_map:
        raise ValueError(f"{index} has no weight_map, so it names no shards: fetch or copy it again.")
    files = [index.parent / name for name in sorted(set(weight_map.values()))]
    for file in files:
        if not file.is_file():
            raise ValueError(f"{file} is missing, and {index.name} needs it: fetch or copy the shard again.")
    return files


def _headers(file: Path) -> dict[str, tuple[tuple[int, ...], int]]:
    """Return the shape and number of bytes of each tensor."""
    if file.suffix != ".safetensors":
        return {name: (tuple(tensor.shape), tensor.nbytes) for name, tensor in _torch_tensors(file).items()}
    with _open_safetensors(file) as opened:
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
        return {name: (tuple(s.get_shape()), _num_bytes(s)) for name, s in slices.items()}


def _num_bytes(tensor_slice: Any) -> int:
    size = {"64": 8, "32": 4, "16": 2}.get("".join(filter(str.isdigit, tensor_slice.get_dtype())), 1)
    for axis in tensor_slice.get_shape():
        size *= axis
    return size


def _chunks(headers: dict[str, tuple[tuple[int, ...], int]]) -> Iterator[list[str]]:
    return _groups({name: size for name, (_, size) in headers.items()}, CHUNK_BYTES)


def _groups(sizes: dict[str, int], limit: int) -> Iterator[list[str]]:
    """Yield the names in order, in groups of at most `limit` bytes, or of a single larger tensor."""
    names: list[str] = []
    total = 0
    for name, size in sizes.items():
        if names and total + size > limit:
            yield names
            names, total = [], 0
        names.append(name)
        total += size
    if names:
        yield names


def _read(file: Path, names: list[str]) -> Iterator[tuple[str, Tensor]]:
    """Yield tensors that are views of the mapped file; the mapping ends with the iteration."""
    if file.suffix == ".safetensors":
        with _open_safetensors(file) as opened:
            yield from ((name, opened.get_tensor(name)) for name in names)
    else:
        stored = _torch_tensors(file)
        yield from ((name, stored[name]) for name in names)


def _open_safetensors(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{file} is no whole safetensors file ({error}): fetch or copy it again.") from error


def _torch_tensors(file: Path) -> dict[str, Tensor]:
    """Return a torch file's tensors, mapped where its format allows, read by torch's restricted unpickler alone."""
    try:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # not a zip archive: written by torch before 1.6, cannot be mapped
            content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{file} was not opened: it is damaged, or holds Python objects, which could run code when read. "
            "Fetch it again from its publisher, or get it as safetensors."
        ) from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(
            f"{file} is no plain dictionary of named tensors, so it cannot be read as a checkpoint. Give a file that "
            "holds a state dict."
        )
    return content


def _replace(module: nn.Module, name: str, tensor: Tensor) -> None:
    owner_name, _, leaf = name.rpartition(".")
    owner = module.get_submodule(owner_name)
    if leaf in owner._parameters:
        old = owner._parameters[leaf]
        setattr(owner, leaf, nn.Parameter(tensor, requires_grad=old is None or old.requires_grad))
    else:
        setattr(owner, leaf, tensor)


def _first(names: list[str]) -> str:
    shown = ", ".join(names[:NUM_NAMES_SHOWN])
    return shown + (", ..." if len(names) > NUM_NAMES_SHOWN else "")
