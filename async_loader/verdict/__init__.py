"""
What is said of a result: thresholds, changes since a baseline, whether it is to be trusted.

                   thresholds  -.
    result -> figures, hidden   +-> criteria (figure, bound, direction, reason) -> judge -> Verdict
                   regression  -'                      ^
                   validity ---------------------------'   what distorts which figure, and which way

    verdict.py                  `judge`, the one place that decides: passed, failed, not measured
    criteria.py                 each thing asked of a run, and what comes of it
    thresholds.py, figures.py   k6's grammar, and the figures that it names
    hidden.py                   dropped, abandoned, not begun: counted at their worst
    validity.py, diagnosis.py   is the measurement good, and what held the run back
    regression.py, bootstrap.py, circumstances.py    against baselines, and how sure that is
    knee.py                     of a sweep: where more load is no more throughput
"""
