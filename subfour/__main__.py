"""`python -m subfour`: the command line, for torchrun."""

from subfour.cli.main import main

main()
