"""Which law to believe and how far: held-out rows, comparison, intervals."""
