"""Batched ORM inserts: the same unit of work, in few statements and with less CPU."""

from async_loader.inserts.bulk.insert_rows import insert_rows
from async_loader.inserts.enable import enable_batch_inserting
from async_loader.inserts.explaining import explain

__all__ = ["enable_batch_inserting", "explain", "insert_rows"]
