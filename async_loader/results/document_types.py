"""What the parts of a result's document are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic needs this one below Python 3.12

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Milliseconds = Annotated[float, Field(ge=0, description="milliseconds")]
EncodedHistogram = Annotated[
    str, Field(description="HdrHistogram V2, compressed, base64; values in nanoseconds")
]
PerSecond = Annotated[list[Count], Field(description="one value for each second of the run")]

# These keys and no others, and a value is what it is said to be: no "1" for 1.
exact = with_config(ConfigDict(extra="forbid", strict=True))


@exact
class Summary(TypedDict):
    """Durations in milliseconds: their mean, percentiles and the longest."""

    mean: Milliseconds
    p50: Milliseconds
    p90: Milliseconds
    p95: Milliseconds
    p99: Milliseconds
    p99_9: Milliseconds
    max: Milliseconds
