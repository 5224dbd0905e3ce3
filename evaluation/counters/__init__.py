"""Counter-metrics: properties of clips that reward hacking moves, measured from the media files without a network.

Sources of the symptoms: docs/evaluation.md, "Counter-metrics".
"""

from __future__ import annotations

from core.lazy import lazy_names

_HOMES = {
    "COUNTERS": "evaluation.counters.names",
    "CounterTable": "evaluation.counters.table",
    "measure_counters": "evaluation.counters.clip",
    "read_counters": "evaluation.counters.table",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
