"""`python -m latlab.harness` is the command `latlab`."""

from latlab.harness.cli.main import main

main()
