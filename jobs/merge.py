"""`python -m vladmap.jobs.merge`: the same as `vladmap merge`."""

from vladmap.jobs.main import command

if __name__ == "__main__":
    command("merge")
