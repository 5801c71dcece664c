"""Where builds run: in this process, in processes that take one build after the other, on Dask, loky or SLURM."""
