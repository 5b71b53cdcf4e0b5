"""`python -m stereopsis`."""

from stereopsis.cli.main import run

if __name__ == "__main__":
    run()
