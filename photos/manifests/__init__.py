"""Manifests: tables that list photographs, with metadata that their files may lack."""
