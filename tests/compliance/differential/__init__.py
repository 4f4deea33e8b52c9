"""
The differential tester: generated models and units of work, performed stock and batched.

    python -m tests.compliance.differential --examples 20000

An example is a Python script in three parts: mapped classes, SQL that the server performs after
their tables are made (triggers, policies), and the steps of one session. It runs twice, in two
databases of one server, once as SQLAlchemy does it and once with `enable_batch_inserting`, and
everything that can be seen is compared: each step's error, the state of every object after each
step, what ORM events saw and in which order, calls of defaults and of types, rows, sequences.

    columns.py      types with values, defaults, names: what a column can be
    models.py       the classes of an example, and their source text
    generation.py   Hypothesis strategies for models
    operations.py   Hypothesis strategies for steps
    conditions.py   what a server can have beside tables
    library.py      what scripts may use: types of their own, defaults with a memory
    observation.py  what is seen of objects, errors, rows and events
    ordering.py     sets that iterate alike in both runs
    comparing.py    what a run left behind, and how two are compared
    performing.py   engines and databases; one example performed
    campaign.py     many examples, and what they covered
    mutants.py      mended faults, broken again: each has to be found
"""
