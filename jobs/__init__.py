"""Jobs that can be launched: one module each, arguments in, exit code out."""

import logging


def _useful(record: logging.LogRecord) -> bool:
    """Whether a log record is shown; not shown is Beam's warning of a missing Google library.

    Beam logs it when it is imported, though only its Google connectors need the library.
    """
    return "apitools not found" not in record.getMessage()


logging.getLogger().addFilter(_useful)
