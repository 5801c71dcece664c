"""From a module or a checkpoint to an artifact, without a Trainer."""
