"""Seven parts for olmo-mixlaw, one a file; nothing is imported before it is asked for."""
