"""What the machine had left for this process: who wanted a core, and who had it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

# Of the time: so much waiting for a core is felt in every latency.
_STARVED = 0.2


@dataclass(frozen=True, slots=True)
class MachineResult:
    """
    The machine during the run, in shares (0 to 1) of its time; None where it does not tell.

    `ran`: the event loop's thread had a core. `waited`: it was ready and had none. `stolen`: of
    all cores' time, the hypervisor gave it to other machines. `throttled`: the container's quota
    was used up. `pressure`: some process waited for a core (Linux' PSI). `others`: cores that
    other processes used, of `cores`; `busiest` names those that used most.
    """

    ran: float
    waited: float | None = None
    stolen: float | None = None
    throttled: float | None = None
    pressure: float | None = None
    others: float | None = None
    cores: int = 1
    busiest: tuple[str, ...] = ()

    @property
    def starved(self) -> bool:
        """Whether this process wanted a core that it did not have."""
        if self.waited is not None:
            return self.waited > _STARVED
        # Where nobody tells how long a thread waits: the others left less than it would take.
        others = self.others or 0.0
        return others > self.cores - 0.5 and self.ran < 1 - _STARVED

    def evidence(self) -> Iterator[str]:
        """Yield what shows who had the cores, in a few words each."""
        if self.others is not None:
            by = f" ({', '.join(self.busiest)})" if self.busiest else ""
            yield f"other processes used {self.others:.1f} of {self.cores} cores{by}"
        if self.stolen is not None and self.stolen > 0.01:
            yield f"{self.stolen:.0%} steal: the host gave the cores to other machines"
        if self.throttled is not None and self.throttled > 0.01:
            yield f"the container's CPU quota stopped it for {self.throttled:.0%} of the time"
        if self.pressure is not None and self.pressure > 0.05:
            yield f"CPU pressure {self.pressure:.0%}"

    def worse(self, other: MachineResult) -> MachineResult:
        """Return the one of the two under which a process had less."""
        return max(self, other, key=lambda machine: machine.waited or 0.0)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | None) -> Self | None:
        """Return what `to_dict` wrote; None of a result that has none."""
        return None if data is None else cls(**{**data, "busiest": tuple(data["busiest"])})

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        figures = {name: _rounded(value) for name, value in asdict(self).items()}
        return {**figures, "busiest": list(self.busiest)}


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
