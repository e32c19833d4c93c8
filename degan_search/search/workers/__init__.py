"""The processes that run trials, and the Ray that they run under."""
