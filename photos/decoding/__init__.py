"""Decoding: from the bytes of a file that may be anything to upright pixels."""
