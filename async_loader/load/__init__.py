"""
One load test, from a spec to a result.

    app.py -> run_database.py -> runner/ -> metrics/ -> the result (../results, ../verdict)
       `-> shards/ (several processes, each with its runner)

    specs/                   what is to be run, as frozen data: all below consume it
    workload.py, loading.py  operations and their mix; finding a user's by its name
    workloads/               the built-in ones, written as a user's are
    pacing/                  when operations are let in (throttles, schedules), and until when
    runner/                  set-up, warm-up, operations, tear-down; the sync ways beside it
    effects/                 what an operation did to its databases
    instruments/             where its time went: pools, dialects, the event loop
    server/                  what the server itself counted
    metrics/                 the counts while it goes on
    partition.py             which operations a shard performs
    baselines.py, progress.py    what a run is held against; how far it is
"""
