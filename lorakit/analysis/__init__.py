"""What training did to the weights, one question per file: pure functions of tensors, with formula and source."""
