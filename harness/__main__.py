"""`python -m latlab.harness` is the command `latlab`."""

from latlab.harness.cli import main

main()
