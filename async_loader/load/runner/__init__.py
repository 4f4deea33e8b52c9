"""The run itself: operations let in, performed, timed; and the synchronous ways beside it."""
