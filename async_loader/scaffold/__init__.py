"""
A first load test for a project: what `async_loader init` finds, and what it writes.

    project.py     the project's models, sessions and application, found and imported
    reading.py     operations that read mapped classes, and those that make objects of them
    routes.py      operations that ask an application's routes
    writing.py     the file with the load test
    pipeline.py    the file for CI
"""
