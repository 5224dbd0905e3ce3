"""`--help` of every command answers at once: it imports no torch and takes at most 2 s of CPU on an idle machine."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("dpo", "evaluation", "model", "pipeline", "rewards", "synthetic")
MAX_CPU_S = 2.0
MAX_PANDAS = 3.0  # on a slow or busy machine, so many times the import of pandas, which the slowest commands need
NUM_TRIES = 2  # other processes on the machine slow the first one down at times
RUN = """
import atexit, runpy, sys
atexit.register(lambda: sys.stderr.write(f"torch imported: {'torch' in sys.modules}"))
module, sys.argv = sys.argv[1], [sys.argv[1], "--help"]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def commands() -> list[str]:
    """Return every `X` of `python -m X`: packages with `__main__.py`, and modules with a `main` of their own."""
    rooms = [path.parent for name in PACKAGES for path in (ROOT / name).rglob("__main__.py")]
    files = [
        path.with_suffix("")
        for name in PACKAGES
        for path in (ROOT / name).rglob("*.py")
        if path.name not in ("__main__.py", "command.py") and "\ndef main(" in path.read_text(encoding="utf-8")
    ]
    return sorted(".".join(path.relative_to(ROOT).parts) for path in rooms + files)


def cpu_s_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.fixture(scope="module")
def limit_s():
    before = cpu_s_of_children()
    subprocess.run([sys.executable, "-c", "import pandas"], check=True)
    return max(MAX_CPU_S, MAX_PANDAS * (cpu_s_of_children() - before))


@pytest.mark.parametrize("command", commands())
def test_help_is_quick_and_imports_no_torch(command, limit_s):
    seconds = []
    for _ in range(NUM_TRIES):
        before = cpu_s_of_children()
        process = subprocess.run([sys.executable, "-c", RUN, command], cwd=ROOT, capture_output=True, text=True)
        seconds.append(cpu_s_of_children() - before)
        assert process.returncode == 0, process.stderr
        assert process.stderr.endswith("torch imported: False")
        assert re.match("usage: ", process.stdout)
        if seconds[-1] <= limit_s:
            return
    pytest.fail(f"--help of {command} took {min(seconds):.1f} s of CPU, more than {limit_s:.1f}")
