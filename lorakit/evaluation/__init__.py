"""What a model answers, and how that scores."""
