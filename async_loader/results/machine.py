"""What the machine had left for this process: who wanted a core, and who had it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from .annotations import NotNegative, Share
from .notes import Rounded
from .part import Part

# Of the time: so much waiting for a core is felt in every latency.
_STARVED = 0.2


_OfTime = Annotated[Share, Rounded(4)]


@dataclass(frozen=True, slots=True)
class MachineResult(Part):
    """Who had the machine's cores, in shares of the time; null where it does not tell."""

    ran: Annotated[_OfTime, Meta(description="the event loop's thread had a core")]
    waited: Annotated[_OfTime | None, Meta(description="it was ready, and had none")] = None
    stolen: Annotated[
        _OfTime | None, Meta(description="of all cores': the hypervisor gave it to other machines")
    ] = None
    throttled: Annotated[_OfTime | None, Meta(description="the container's quota was used up")] = (
        None
    )
    pressure: Annotated[
        _OfTime | None, Meta(description="some process waited for a core (Linux' PSI)")
    ] = None
    others: Annotated[
        Annotated[NotNegative, Rounded(4)] | None,
        Meta(description="cores that other processes used"),
    ] = None
    cores: Annotated[int, Meta(ge=1)] = 1
    busiest: Annotated[
        tuple[str, ...], Meta(description="names, and the cores that each used")
    ] = ()

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
