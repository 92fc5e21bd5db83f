"""The rendered book: pages, tables in them, verdicts, coverage, labs."""

from pathlib import Path

import yaml

SAID = yaml.safe_load(Path(__file__).with_name("pages.yml").read_text("utf-8"))
