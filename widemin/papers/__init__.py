"""One room a paper: its plan, its claims, its figures, its theory."""
