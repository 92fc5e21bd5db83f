"""One room a paper: its plan, its claims, its figures, its theory."""

NARROW = "application/vnd.widemin.narrow"  # a figure's drawing for phones, as a type
