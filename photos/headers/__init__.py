"""Headers: what a photograph says of itself, in EXIF, XMP and the notes of Mapillary's tools."""
