"""Ranges of inputs: what was observed, what the datamodule and the loaders tell, what the user says."""
