"""The part of the page that can be played with: a front over any cost, limits to drag, and tables that sort.

`explorer.js` draws it from the run's figures, which stand in the page as JSON, and needs no library.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from daqu_tf.report.run import Member, Run

# Of each cost: how it is called, its unit, and how many of its own units that is. Others are counts.
UNITS = {
    "latency_us": ("latency", "µs", 1.0),
    "file_bytes": ("size", "kB", 1e3),
    "deflated_bytes": ("deflated size", "kB", 1e3),
    "bit_packed_bytes": ("bit-packed weights", "kB", 1e3),
    "peak_activation_bytes": ("activations", "kB", 1e3),
    "macs": ("multiplications", "M", 1e6),
    "bitops": ("BitOPs", "M", 1e6),
    "parameters": ("parameters", "k", 1e3),
}
_HERE = pathlib.Path(__file__)
CSS, SCRIPT = (_HERE.with_suffix(ending).read_text(encoding="utf-8") for ending in (".css", ".js"))
MOST_TRIALS = 500  # More points than that are only slower.


def write(run: Run) -> str:
    """The HTML of the explorer, which shows itself where scripts may run; empty where no model has a cost.

    Args:
        run: The run.
    """
    members = [member for member in run.members if member.search is not None]
    names = [name for name in dict.fromkeys((*run.costs, *UNITS)) if any(name in member.costs for member in members)]
    if not members or not names:
        return ""
    content = {
        "costs": [dict(zip(("name", "label", "unit", "size"), (name, *UNITS.get(name, (name, "", 1.0))))) for name in names],
        "members": [_member(member) for member in members],
        "trials": [_trial(trial) for trial in run.trials[:: max(1, len(run.trials) // MOST_TRIALS)] if trial.get("accuracy")],
    }
    # No text of a run may end the element that it stands in.
    data = json.dumps(content, ensure_ascii=False).replace("<", "\\u003c")
    return f'<div id=explorer><svg hidden></svg></div><script type="application/json" id=run>{data}</script>'


def _member(member: Member) -> dict[str, Any]:
    return {
        "name": member.name,
        "front": member.on_front,
        "search": member.search,
        "costs": member.costs,
        "text": member.subnet_text,
    }


def _trial(trial: Mapping[str, float | None]) -> dict[str, Any]:
    return {"search": trial["accuracy"], "costs": {name: value for name, value in trial.items() if value and name != "accuracy"}}
