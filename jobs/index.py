"""`python -m vladmap.jobs.index`: the same as `vladmap index`."""

from vladmap.jobs.main import command

if __name__ == "__main__":
    command("index")
