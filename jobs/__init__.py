"""Jobs that can be launched: one module each, arguments in, exit code out."""
