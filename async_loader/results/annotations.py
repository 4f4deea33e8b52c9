"""What the fields of results are: their units, bounds and forms in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta

from .histogram import PERCENTILES, Histogram
from .notes import Named, Rounded

Count = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
NotNegative = Annotated[float, Meta(ge=0)]
PerSecondRate = Annotated[NotNegative, Rounded(3)]
Milliseconds = Annotated[float, Meta(ge=0, description="milliseconds")]
PerSecond = Annotated[tuple[Count, ...], Meta(description="one value for each second of the run")]
EncodedHistogram = Annotated[
    Histogram, Meta(description="HdrHistogram V2, compressed, base64; values in nanoseconds")
]
Summary = Annotated[
    Mapping[str, Milliseconds],
    Named(
        "Summary",
        "Durations in milliseconds: their mean, percentiles and the longest.",
        (
            ("mean", "the mean"),
            *(("p" + f"{p:g}".replace(".", "_"), f"the {p:g}th percentile") for p in PERCENTILES),
            ("max", "the longest"),
        ),
    ),
]
