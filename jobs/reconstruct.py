"""`python -m vladmap.jobs.reconstruct`: the same as `vladmap reconstruct`."""

from vladmap.jobs.main import command

if __name__ == "__main__":
    command("reconstruct")
