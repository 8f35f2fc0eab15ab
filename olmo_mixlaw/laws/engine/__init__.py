"""How formulas are fitted: batched least squares, many starts, noise learnt on the way."""
