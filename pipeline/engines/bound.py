"""A program that ends with the process that started it, however that one ends.

python -m vladmap.pipeline.engines.bound PARENT PROGRAM WORD...
"""

from __future__ import annotations

import os
import sys

from vladmap.photos.processes import end_with


def main() -> None:
    """Become the program; PARENT is the id of the process that started this one."""
    end_with(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
