"""The procedures: one module a distribution, each a list of steps as pure data."""
