"""The rendered book: pages, tables in them, verdicts, coverage, labs."""
