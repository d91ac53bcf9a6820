"""Search over the interleavings of a scenario."""
