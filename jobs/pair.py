"""`python -m vladmap.jobs.pair`: the same as `vladmap pair`."""

from vladmap.jobs.main import command

if __name__ == "__main__":
    command("pair")
