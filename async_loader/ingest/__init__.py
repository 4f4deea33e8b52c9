"""
A directory of audio files with pictures into rows: the worked example of jobs and inserts.

    listing.py              what is there, and what of it is missing
    reading.py, tags.py, pictures.py, preparing.py, pipeline.py
                            a pair of files into the columns of a row, several side by side
    loading.py, tally.py    the job, and what it has done
    tables.py               the rows
    demo.py                 files to try it with
    strategies.py, report.py    what the plain ways would have cost, and the words for it all
"""

from .listing import Problem
from .loading import ingest
from .tables import File, Track
from .tally import Counts, Ingested, Progress

__all__ = ["Counts", "File", "Ingested", "Problem", "Progress", "Track", "ingest"]
