"""
What is to be run, as plain frozen data: settings make it, everything below them consumes it.

`run` says what one event loop is to do, `load_test` what a whole command or service run is.
"""
