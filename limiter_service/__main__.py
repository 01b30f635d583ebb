"""`python -m limiter_service` and the console script `sluicegate`."""

from limiter_service.cli import app


def main() -> None:
    """Run the command line."""
    app(prog_name="sluicegate")


if __name__ == "__main__":
    main()
