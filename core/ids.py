"""Names and seeds that depend on the content alone, never on the time or the machine."""

from __future__ import annotations

import hashlib
import re

GROUND_TRUTH_INDEX = -1


def candidate_id(prompt_id: str, index: int) -> str:
    """Return `<prompt_id>/<index>`, and `<prompt_id>/gt` for the ground truth (index -1)."""
    return f"{prompt_id}/{file_stem(index)}"


def candidate_seed(run_seed: int, prompt_id: str, index: int) -> int:
    """Return the seed of a candidate's noise: 63 bits, the same on any machine and in any order of sampling."""
    key = f"{run_seed}\0{prompt_id}\0{index}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1


def stem(prompt_id: str) -> str:
    """Return the folder name of a prompt's clips: safe in any shell and file system, different for every prompt_id.

    Up to 40 characters of the id for people, then 12 hex digits of its hash for uniqueness.
    """
    readable = re.sub(r"[^A-Za-z0-9_]+", "_", prompt_id).strip("_")[:40] or "prompt"
    return f"{readable}-{fingerprint(prompt_id)}"


def file_stem(index: int) -> str:
    """Return `gt`, `0`, `1`, ...: the name of a candidate's files, without suffix."""
    return "gt" if index == GROUND_TRUTH_INDEX else str(index)


def fingerprint(text: str) -> str:
    """Return 12 hex digits of the text's hash."""
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
