"""`python -m vladmap.jobs.describe`: the same as `vladmap describe`."""

from vladmap.jobs.main import command

if __name__ == "__main__":
    command("describe")
