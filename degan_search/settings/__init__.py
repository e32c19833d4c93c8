"""What a trial is told: its settings, and the names that they may take."""
