"""What processes do: synthetic mixes and recorded page-reference traces."""
