"""Manifests: tables that name photographs and say what is known of them beside their files."""
