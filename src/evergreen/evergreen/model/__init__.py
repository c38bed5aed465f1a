"""`evergreen model`: one module a verb in `verbs/`, each with a `VERB`."""
