"""How the Ant moves: its numbers and the Warp functions that integrate them. Knows no reward and no torch."""
