"""The avdpo toolkit: preference data and DPO for joint audio-video generators.

`__version__` is the version of the whole distribution; the package metadata is built from it.
"""

from __future__ import annotations

__version__ = "0.1.0"
