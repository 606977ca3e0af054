"""Exports of an atlas for other tools: one module for each kind, listed in `exports.kinds`."""
