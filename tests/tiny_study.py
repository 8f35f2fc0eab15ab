"""A study of six runs of a few seconds, with `{output}` to fill in."""

STUDY = """
name: tiny
output: {output}
ladder: micro-dense
sizes: [w16, w32]
tokens: [40_000]
domains:
  wiki: mixlaw:text?corpus=wikipedia
  bio: "mixlaw:biography?n=8&seed=1&templates=1&pools=middle:0,birth_date:12,employer:4"
mixtures:
  low: {{wiki: 0.8, bio: 0.2}}
  mid: {{wiki: 0.5, bio: 0.5}}
  high: {{wiki: 0.3, bio: 0.7}}
laws: [no_mixture, transfer]
tokenizer: {{vocab_size: 512, characters: 200_000}}
evaluation: {{tasks: [bio_recall], heldout_tokens: 4096}}
target: {{size: w64, tokens: 40_000, bounds: {{bio: [0.1, 0.9]}}}}
checkpoint_every: 5
workers: 2
"""
