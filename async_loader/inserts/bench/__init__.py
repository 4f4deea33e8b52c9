"""Ways to insert the same rows, measured side by side on one server."""

from async_loader.inserts.bench.measure import Measure, measure_inserts
from async_loader.inserts.bench.shapes import SHAPES, Shape
from async_loader.inserts.bench.strategies import WAYS, InsertStrategy

__all__ = ["SHAPES", "WAYS", "InsertStrategy", "Measure", "Shape", "measure_inserts"]
