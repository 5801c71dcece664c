"""What long work is doing, how that is displayed, and what becomes of upstream's output."""
