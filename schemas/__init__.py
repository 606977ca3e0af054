"""The atlas's contract: records, enumerations and Arrow schemas, versioned."""

SCHEMA_VERSION = 1
