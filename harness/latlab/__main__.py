"""`python -m latlab` is the command `latlab`."""

from latlab.harness.cli.main import main

main()
