"""A module and its ranges to an ExportedProgram; the module stays as it was."""
