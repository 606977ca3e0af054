"""Localisation: where a photograph was taken, by an atlas; `unknown` where that cannot be told."""
