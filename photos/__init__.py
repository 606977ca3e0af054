"""Reading photographs: headers, pixels, ids, manifests, sequences, cells and geometry."""
