"""What a user of Python calls, and what the command line is made of: sweeps begun and gone on with, runs read."""
