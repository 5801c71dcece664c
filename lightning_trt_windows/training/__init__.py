"""The callback and what it does while a Trainer fits: preflight, checkpoints, outcomes, publishing."""
