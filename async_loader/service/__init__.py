"""
The service: runs started, watched and compared over HTTP, and kept in a history.

It adds no logic of its own: a run, a job, a result and a report are those of the commands.

    scenarios.py, targets.py       what a request can name: TOML files, databases
    tables.py, migrations/         the history's tables, made and changed by Alembic
    history.py, history_database.py    every statement to them; one service to a history
    work.py, executing.py          a run in a worker process, and this side of it
    live.py, runs.py               what a run tells its watchers; start, stop, end, recovery
    scheduling.py                  scenarios that run by themselves
    documents.py, problems.py      what requests and answers look like; answers.py: of a comparison
    entrance.py, connections.py    who gets a connection, and for how long; protocol.py, head.py
    guard.py, tokens.py            who may ask, and for how much; forwarded.py: behind a proxy
    path_redaction.py              what nobody is told of this machine
    state.py                       what the routes work with
    app.py, routes_*.py            the HTTP API
    command.py                     the process: its settings, its signals, its end
"""
