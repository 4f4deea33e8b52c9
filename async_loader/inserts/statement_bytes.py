"""How many bytes one statement carries unless somebody says otherwise."""

STATEMENT_BYTES = 16 * 1024 * 1024  # of long values
