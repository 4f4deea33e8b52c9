"""The commands `report` and `schema`: saved results rendered again, and their JSON Schema."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..reports import comparison as comparison_report
from ..reports import console as console_report
from ..reports import sweep as sweep_report
from ..reports.comparison import group
from ..reports.forms import COMPARE_FORMS, RUN_FORMS, SWEEP_FORMS
from ..results.run import RunResult
from ..results.saved import Saved, read_saved
from ..runtime.outputs import DONE, check_outputs, show, write_outputs
from ..runtime.streams import stdout
from ..settings.report import ReportSettings, SchemaSettings
from ..settings.sources import in_flags
from ..verdict.document import json_schema


def run_report(settings: ReportSettings) -> int:
    """Render the files; return 0 for what could be rendered, whatever its verdict was."""
    check_outputs(settings.outputs, RUN_FORMS)
    found = [read_saved(path) for path in settings.files]
    render: Callable[..., str]
    what: Any
    if len(found) == 1 and found[0].is_sweep:
        render, forms, what = sweep_report.render, SWEEP_FORMS, found[0].runs
    elif len(found) == 1 and len(found[0].runs) == 1:
        render, forms, what = console_report.render, RUN_FORMS, found[0].runs[0]
    else:
        what = labelled(settings.files, found)
        render, forms = comparison_report.render, COMPARE_FORMS
    code = write_outputs(settings.outputs, forms, what, DONE)
    shown = show(summary(render, what), settings.outputs)
    return code or shown


def summary(render: Callable[..., str], what: Any) -> Callable[..., str]:
    """Return what renders something for a terminal, in the words of the command line."""
    return lambda **options: in_flags(render(what, **options))


def labelled(files: Sequence[Path], found: Sequence[Saved]) -> dict[str, list[RunResult]]:
    """
    Return the runs in the files by a label that tells them apart.

    One file's are told apart by their modes; several files' by the file, and by the mode too
    where a file holds a comparison.
    """
    grouped = [group(saved.runs) for saved in found]
    if len(files) == 1:
        return grouped[0]
    ways: dict[str, list[RunResult]] = {}
    for name, by_mode in zip(_names(files), grouped, strict=True):
        for mode, runs in by_mode.items():
            ways[name if len(by_mode) == 1 else f"{name} {mode}"] = runs
    return ways


def _names(files: Sequence[Path]) -> list[str]:
    """Return the files' names, with so much of their paths as tells them apart."""
    stems = Counter(path.stem for path in files)
    paths = Counter(map(str, files))
    seen: Counter[str] = Counter()
    names = []
    for path in files:
        name = path.stem if stems[path.stem] == 1 else str(path)
        seen[name] += 1
        names.append(name if paths[str(path)] == 1 else f"{name} ({seen[name]})")
    return names


def print_schema(_settings: SchemaSettings) -> int:
    """Print the JSON Schema on stdout."""
    stdout().write(json.dumps(json_schema(), indent=1) + "\n")
    stdout().flush()
    return DONE
