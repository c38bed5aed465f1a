"""The verbs of `evergreen model`: one module each, named as the verb, with a `VERB`, which is a `Command`.

A module of this folder imports only what its `--help` needs; `run` imports the rest.
"""
