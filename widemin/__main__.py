"""`python -m widemin` is the command `widemin`."""

from widemin.cli import main

main()
