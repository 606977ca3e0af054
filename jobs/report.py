"""`python -m vladmap.jobs.report`: the same as `vladmap report`."""

from vladmap.jobs.main import command

if __name__ == "__main__":
    command("report")
