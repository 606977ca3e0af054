"""An atlas for other people's tools: one module a kind, listed in `exports.kinds`."""
