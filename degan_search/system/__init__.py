"""The ground layer: errors, random seeds, devices, CPUs and files."""
