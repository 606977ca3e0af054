"""The atlas's contract: records, enumerations and Arrow schemas, versioned."""

SCHEMA_VERSION = 1
VERSION = "0.1.0"
"""The version of vladmap; `setup.py` reads it here."""
