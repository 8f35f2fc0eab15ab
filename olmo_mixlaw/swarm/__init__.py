"""Swarms: which mixtures to train small models on, before anything is known of the losses.

`sources` say what there is, `draws` make mixtures of it within `limits`, and `writing` hands them
to a study, to OLMo, to OLMo-core or to Olmix.
"""
