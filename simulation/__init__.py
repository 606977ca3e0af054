"""Rendered cities with known truth: the sample collection, tests and training data."""
