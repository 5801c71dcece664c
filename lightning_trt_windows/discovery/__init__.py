"""What the data looks like: datamodule and batches to ranges of shapes."""
