"""`python -m towpath` is the command `towpath`."""

from towpath.cli.main import main

main()
