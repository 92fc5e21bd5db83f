"""Chapter 5: what none of the four papers measured."""
