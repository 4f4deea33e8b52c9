"""A load gate, a write path and batch jobs for the asyncio ORM of SQLAlchemy."""
