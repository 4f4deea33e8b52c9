"""The running counts of what failed, in bounded memory: one for each fault."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from ...failures.classification import Failure, constraint_in
from ...failures.tracebacks import Sample, sample_of, shape_of, source_of
from ...results.errors import ErrorResult, named

# Messages of one line of code that are told apart, and faults in all.
_MOST_MESSAGES = 5
_MOST_FAULTS = 100
_OTHERS = "(other failures)"

# Kind, constraint, the line that raised: what a place is.
_Place = tuple[str, str | None, str | None]


@dataclass(slots=True)
class _Fault:
    sample: Sample
    by_operation: Counter[str] = field(default_factory=Counter)


class ErrorTally:
    """
    Failures by kind, constraint, place and message.

    Of an exception only strings are kept. A message that differs from another of its place in
    numbers and quoted words is the same; beyond five of a place and a hundred faults in all,
    what is new is counted with what is known.
    """

    def __init__(self) -> None:
        self._faults: dict[tuple[_Place, str], _Fault] = {}
        self._messages: dict[_Place, list[str]] = defaultdict(list)

    def count(
        self,
        operation: str,
        failure: Failure,
        error: BaseException | None,
        sample: Sample | None = None,
    ) -> None:
        """Count a failure of an operation; `sample` is what to tell of one without an error."""
        try:
            fault = self._fault_of(failure, error, sample)
        except BaseException:  # an error that cannot even be looked at is counted all the same
            fault = self._fault_of(failure, None, Sample(f"{failure.name}: it cannot be told"))
        fault.by_operation[operation] += 1

    def _fault_of(
        self, failure: Failure, error: BaseException | None, sample: Sample | None
    ) -> _Fault:
        place: _Place = (failure.name, None, sample.source if sample is not None else None)
        shape = ""
        if error is not None:
            place = (failure.name, constraint_in(error), source_of(error))
            shape = shape_of(error)
        key = self._key(place, shape)
        fault = self._faults.get(key)
        if fault is None:
            others = key[0][0] == _OTHERS
            known = sample or sample_of(error, failure.name)
            sample = Sample(_OTHERS) if others else known
            fault = self._faults[key] = _Fault(sample)
        return fault

    def _key(self, place: _Place, shape: str) -> tuple[_Place, str]:
        """Return what a failure is counted under: itself while there is room."""
        messages = self._messages.get(place)
        if messages is None:
            if len(self._faults) >= _MOST_FAULTS:
                return (_OTHERS, None, None), ""
            messages = self._messages[place]
        if shape not in messages:
            if len(messages) >= _MOST_MESSAGES or len(self._faults) >= _MOST_FAULTS:
                return place, messages[0]
            messages.append(shape)
        return place, shape

    def by_kind(self) -> Counter[str]:
        """Return how often each kind of failure was met."""
        kinds: Counter[str] = Counter()
        for ((kind, _, _), _), fault in self._faults.items():
            kinds[kind] += fault.by_operation.total()
        return kinds

    def result(self) -> dict[str, ErrorResult]:
        """Return the faults, the most frequent first."""
        return named(
            ErrorResult(
                count=fault.by_operation.total(),
                by_operation=dict(fault.by_operation),
                sample=fault.sample.message,
                source=fault.sample.source,
                traceback=fault.sample.traceback,
                kind=kind,
                constraint=constraint,
            )
            for ((kind, constraint, _), _), fault in self._faults.items()
        )
