"""`python -m vladmap.jobs.spark`: the same as `vladmap spark`."""

from vladmap.jobs.main import command

if __name__ == "__main__":
    command("spark")
