"""Facts about modules, containers of tensors and dtypes that the Linux half shares."""
