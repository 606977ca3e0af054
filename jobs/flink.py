"""`python -m vladmap.jobs.flink`: the same as `vladmap flink`."""

from vladmap.jobs.main import command

if __name__ == "__main__":
    command("flink")
