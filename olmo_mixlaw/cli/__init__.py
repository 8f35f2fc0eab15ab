"""The command line: `olmo-mixlaw`, or `python -m olmo_mixlaw`. One file a command."""
