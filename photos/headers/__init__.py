"""Headers: a photograph's metadata from EXIF, XMP and the JSON of Mapillary's tools."""
