"""Laws with a formula, one family a file, and what formulas are made of."""
