"""Ways to insert the same rows, measured side by side on one server."""

from async_loader.inserts_bench.measure import Measure, measure_inserts
from async_loader.inserts_bench.shapes import SHAPES, Shape
from async_loader.inserts_bench.ways import WAYS, Way

__all__ = ["SHAPES", "WAYS", "Measure", "Shape", "Way", "measure_inserts"]
