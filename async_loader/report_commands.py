"""The commands `report` and `schema`: saved results rendered again, and their JSON Schema."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from .outputs import DONE, check_outputs, show, write_outputs
from .report_settings import ReportSettings, SchemaSettings
from .reports import comparison as comparison_report
from .reports import console as console_report
from .reports.comparison import group
from .reports.forms import COMPARE_FORMS, RUN_FORMS
from .result_document import json_schema
from .results import RunResult
from .saved import read_results


def run_report(settings: ReportSettings) -> int:
    """Render the files; return 0 for what could be rendered, whatever its verdict was."""
    check_outputs(settings.outputs, RUN_FORMS)
    compared = read_labelled(settings.files)
    runs = [run for rounds in compared.values() for run in rounds]
    if len(runs) == 1:
        shown = show(partial(console_report.render, runs[0]), settings.outputs)
        return write_outputs(settings.outputs, RUN_FORMS, runs[0], shown)
    shown = show(partial(comparison_report.render, compared), settings.outputs)
    return write_outputs(settings.outputs, COMPARE_FORMS, compared, shown)


def read_labelled(files: Sequence[Path]) -> dict[str, list[RunResult]]:
    """
    Return the runs in the files by a label that tells them apart.

    One file's are told apart by their modes; several files' by the file, and by the mode too
    where a file holds a comparison. Raises `ConfigurationError` for a file that is no result.
    """
    grouped = [group(read_results(path)) for path in files]
    if len(files) == 1:
        return grouped[0]
    labelled: dict[str, list[RunResult]] = {}
    for name, by_mode in zip(_names(files), grouped, strict=True):
        for mode, runs in by_mode.items():
            labelled[name if len(by_mode) == 1 else f"{name} {mode}"] = runs
    return labelled


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
    sys.stdout.write(json.dumps(json_schema(), indent=1) + "\n")
    sys.stdout.flush()
    return DONE
