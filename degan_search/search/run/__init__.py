"""A run: its options, folder, jobs and results, its copy in a store, and how faults and signals are handled."""
