"""Ways to insert the same rows, measured side by side on one server."""

from .measure import Measure, measure_inserts
from .shapes import SHAPES, Shape
from .strategies import WAYS, InsertStrategy

__all__ = ["SHAPES", "WAYS", "InsertStrategy", "Measure", "Shape", "measure_inserts"]
