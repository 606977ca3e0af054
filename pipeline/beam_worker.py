"""A Beam worker process that ends when the process that started it ends.

Beam's own worker continues after its runner was killed, with its models in memory.
"""

from __future__ import annotations

import sys

from vladmap.photos.processes import end_with


def main() -> None:
    """Run Beam's worker; the first argument is the id of the process that started this one."""
    end_with(int(sys.argv.pop(1)))
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
