"""Curation: models' own good work as data for `crrl sft`.

`episodes` and `layouts` read trajectories (journals; chats of others), `select` decides which are kept and counts why
the others are not, `near` knows what is nearly the same, `write` makes the data set and its card.
"""
