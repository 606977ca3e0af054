"""`python -m vladmap.jobs.ingest`: the same as `vladmap ingest`."""

from vladmap.jobs.main import command

if __name__ == "__main__":
    command("ingest")
