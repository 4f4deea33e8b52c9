"""The sampler's stacks in speedscope's file format (https://www.speedscope.app)."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from .sampler import Stack

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def speedscope(stacks: Counter[Stack], name: str) -> str:
    """Return the JSON of a sampled profile; the weight of a stack is how often it was seen."""
    frames: dict[tuple[str, str, int], int] = {}
    samples = [[frames.setdefault(f, len(frames)) for f in stack] for stack in stacks]
    document: dict[str, Any] = {
        "$schema": _SCHEMA,
        "exporter": "async_loader",
        "name": name,
        "activeProfileIndex": 0,
        "shared": {"frames": [_frame(*frame) for frame in frames]},
        "profiles": [
            {
                "type": "sampled",
                "name": name,
                "unit": "none",
                "startValue": 0,
                "endValue": stacks.total(),
                "samples": samples,
                "weights": list(stacks.values()),
            }
        ],
    }
    return json.dumps(document)


def write_profile(path: Path, stacks: Counter[Stack], name: str) -> None:
    """Write the profile; raises `OSError`."""
    path.write_text(speedscope(stacks, name), encoding="utf-8", errors="backslashreplace")


def _frame(name: str, file: str, line: int) -> dict[str, Any]:
    return {"name": name, **({"file": file, "line": line} if file else {})}
