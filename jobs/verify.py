"""`python -m vladmap.jobs.verify`: the same as `vladmap verify`."""

from vladmap.jobs.main import command

if __name__ == "__main__":
    command("verify")
