"""Rows without objects: read, prepared and sent in bulk."""
