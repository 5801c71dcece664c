"""The artifact: files, names, manifest, engine payloads, inspection and signatures. Standard library only."""
