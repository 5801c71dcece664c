"""Public projects that train with Lightning, each given the plain callback as their users would: ``make projects``."""
