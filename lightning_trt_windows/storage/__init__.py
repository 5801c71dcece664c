"""Files that may be elsewhere: remote files and artifacts, destinations, the index of a run."""
