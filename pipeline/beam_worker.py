"""A worker of Beam's in a process of its own that ends with the process that started it.

Beam's own goes on when the runner is killed, and keeps the models in memory.
"""

from __future__ import annotations

import sys

from vladmap.photos.processes import end_with


def main() -> None:
    """Run Beam's worker; the first word is the id of the process that started this one."""
    end_with(int(sys.argv.pop(1)))
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
