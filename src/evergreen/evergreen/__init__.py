"""The evergreen command."""
