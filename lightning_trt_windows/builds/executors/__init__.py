"""Where builds run: in this process, in fresh processes, on Dask, loky or SLURM."""
