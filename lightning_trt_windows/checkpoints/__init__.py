"""Reading Lightning's checkpoints, whole or sharded."""
