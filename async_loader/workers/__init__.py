"""
Workers: where the parts of one run are performed, each a process here or on another machine.

`contract` says what any kind of workers offers, `processes` is the kind on this machine.
"""

from .contract import SNAPSHOT_BYTES, Link, Message, Worked, Workers, encoded
from .processes import ProcessWorkers, end_tracker

__all__ = [
    "SNAPSHOT_BYTES",
    "Link",
    "Message",
    "ProcessWorkers",
    "Worked",
    "Workers",
    "encoded",
    "end_tracker",
]
