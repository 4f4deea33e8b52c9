"""
Workers on the machines of a Dask cluster: no scheduler and no protocol of our own.

    joining.py     a cluster whose workers are all fit to take part
    workers.py     its workers, as `Workers`
    inside.py      what runs on them
    identity.py    which package a process has
    opaque.py      what must not be read in passing

Dask is imported when a cluster is joined, and not before.
"""

from .joining import Cluster, cluster_address, is_local, joined
from .workers import DaskWorkers

__all__ = ["Cluster", "DaskWorkers", "cluster_address", "is_local", "joined"]
