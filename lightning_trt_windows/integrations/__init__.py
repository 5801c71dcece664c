"""How WindowsExport is switched on without writing it into the Trainer: LightningCLI, flags, environment, YAML."""
