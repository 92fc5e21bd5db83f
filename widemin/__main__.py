"""The command `widemin`, or `python -m widemin`."""

import sys


def main() -> None:
    """Run the command; a package that it lacks is one line and exit status 2."""
    try:
        from widemin.cli import main as command

        command()
    except ModuleNotFoundError as error:
        print(
            f"Error: {error.name} must be installed for this command: "
            "pip install 'widemin[experiments,book]'; and `widemin` must run from a "
            "checkout (README.md, Reproduce it)",
            file=sys.stderr,
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
