"""`python -m towpath` is the command `towpath`."""

from towpath.cli import main

main()
