"""`python -m olmo_mixlaw.cli` is `olmo-mixlaw`."""

from olmo_mixlaw.cli.app import main

main()
