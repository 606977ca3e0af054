"""Decoding: from the untrusted bytes of a file to upright pixels."""
