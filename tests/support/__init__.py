"""What tests share: models, stand-ins for what cannot exist here, and pages that tests keep up to date."""
