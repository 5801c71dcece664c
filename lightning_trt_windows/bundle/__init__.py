"""From a run's directory to what goes to the Windows machine: one zip, a Hugging Face folder, a report."""
