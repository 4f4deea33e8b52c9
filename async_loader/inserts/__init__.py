"""Batched ORM inserts: the same unit of work, in few statements and with less CPU."""

from async_loader.inserts.enable import enable_batch_inserting

__all__ = ["enable_batch_inserting"]
