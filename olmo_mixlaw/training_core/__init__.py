"""Training with OLMo-core's Trainer (`olmo_core` 3), on a planned mixture.

`launch.train` is the way in from a YAML file, `scripts` from a script of one's own. OLMo-core's
classes are subclassed, never patched; importing this package alone imports no host.
"""
