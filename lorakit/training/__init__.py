"""Training: which examples meet in a batch, what the loss is, how the parameters move."""
