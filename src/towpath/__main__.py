"""`python -m towpath` and the script `towpath` run the command line."""

import sys

from towpath.errors import MissingExtra


def main() -> None:
    """Run the command line, or print which extra it needs and exit with status 2."""
    try:
        from towpath.cli.main import main as run
    except MissingExtra as missing:
        print(f"towpath: {missing}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None
    run()


if __name__ == "__main__":
    main()
