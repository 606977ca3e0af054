"""Jobs that can be launched: one module each, arguments in, exit code out."""

import logging


def _useful(record: logging.LogRecord) -> bool:
    """Beam warns of Google's libraries when it is imported; a build without them is no less."""
    return "apitools not found" not in record.getMessage()


logging.getLogger().addFilter(_useful)
