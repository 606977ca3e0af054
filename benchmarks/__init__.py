"""Speed and recall, measured against the bare library calls in one run."""
