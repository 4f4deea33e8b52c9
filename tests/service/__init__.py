"""The service over real HTTP, its runs on a real PostgreSQL."""
