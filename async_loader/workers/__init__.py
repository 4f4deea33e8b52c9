"""
Elsewhere: where a run, or a part of one, is performed in another process than it was asked in.

    who asks                          by                     which is
    a run of its own: `run`,          supervision/           a fork of the command, that
    each of compare and sweep                                outlives it and has its exit code
    shards, the service's runs,       processes.py           fresh interpreters, one call at a
    jobs                                (inside.py, inbox.py)  time, with a line both ways
    shards and jobs, on machines      cluster/               Dask's workers, which are not
                                        (shipping.py)          ours to start or to end

    contract.py    what any kind of workers offers, and the messages of all conversations
    answers.py     how work ends that was not lost: found, failed, or not begun
    ends.py        how long silence is waited for, and how a process ended, in words
    stopping.py    a request to stop, on its way; orphans.py: no process outlives its parent

Why there are three: a worker's interpreter must be a fresh one, as it is started from an event loop
with threads and connections; a run of the command is forked before there are any, which takes no
time, and only its parent can end it when its interpreter stands still; a cluster has its own
protocol, and its processes serve others. What is sent is data: a frozen spec down, tagged messages
both ways, an answer back. What is printed goes to stderr in all of them (`runtime.streams`).

    the other side ...   supervision                  processes                cluster
    dies                 `Lost`, with its figures     `WorkerLostError`        the same, when it
                         of the last second           at once, by its pipe     has left the cluster
    hangs                found by its own thread,     found by who knows what  the same; it is left
                         else ended from here         is due: `give_up`        alone
    loses its parent     told to end, twice           `listen` says None;      the same
                                                      killed by the kernel
"""

from .contract import SNAPSHOT_BYTES, Arrived, Halt, Link, Message, Worked, Workers, encoded, read
from .processes import ProcessWorkers, end_tracker

__all__ = [
    "SNAPSHOT_BYTES",
    "Arrived",
    "Halt",
    "Link",
    "Message",
    "ProcessWorkers",
    "Worked",
    "Workers",
    "encoded",
    "end_tracker",
    "read",
]
