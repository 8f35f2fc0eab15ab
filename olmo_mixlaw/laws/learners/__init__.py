"""Laws without a formula of their own: processes, trees, regimes, and the stack of laws."""
