"""`python -m olmo_mixlaw` is `olmo-mixlaw`; torchrun starts it so."""

from olmo_mixlaw.cli.app import main

main()
