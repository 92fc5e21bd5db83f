"""The command `widemin`: run chapters, render the book, fetch data.

Everything but click is imported where it is needed: planning and computing runs
needs neither Jupyter nor a plotting library.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

import widemin
from widemin.paths import home


class BadInput(click.ClickException):
    """Something the user gave: one line on stderr, exit status 2, nothing written."""

    exit_code = 2


class Terminated(KeyboardInterrupt):
    """SIGTERM, which batch systems send before they kill: heard as Ctrl-C is."""


@contextmanager
def hearing_termination() -> Iterator[None]:
    """Have SIGTERM raise Terminated meanwhile; for main threads, as signals are."""

    def terminated(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def need(*packages: str) -> None:
    """Raise ModuleNotFoundError for a package that is not installed; import none."""
    for name in packages:
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


class Commands(click.Group):
    """Commands whose users get a line and an exit status of what they can cause."""

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command."""
        try:
            with hearing_termination():
                return super().invoke(ctx)
        except (click.Abort, click.exceptions.Exit, BrokenPipeError):  # click's own
            raise
        except ValueError as error:
            raise BadInput(str(error)) from error
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package in ("", "widemin"):
                raise
            how = "make labs" if package == "nbgrader" else "make .venv/.ready"
            raise BadInput(
                f"{package} must be installed for this; found none: `{how}` in a "
                "checkout installs it"
            ) from error
        except RuntimeError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:  # a full disk, say
            what = f"{error.filename or 'the system'}: {error.strerror or error}"
            raise click.ClickException(what) from error
        except KeyboardInterrupt as signalled:
            click.echo("Stopped; what is finished or begun is kept.", err=True)
            sys.exit(143 if isinstance(signalled, Terminated) else 130)


SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True}


@click.group(cls=Commands, context_settings=SETTINGS)
@click.version_option(widemin.__version__, prog_name="widemin")
def main() -> None:
    r"""Rerun four papers on wide minima and adversarial robustness.

    \b
    Examples:
      widemin run all                       every chapter at the smoke preset
      widemin run 04 --preset lab           chapter 4 on real MNIST, 20 minutes
      widemin run 02 -p rhos "[0.05, 0.1]"  with other radii
      widemin status                        what has been computed
    """


class Folder(click.Path):
    """A folder as users name it: `~` is home, also where no shell says so."""

    def convert(self, value: Any, *about: Any) -> Path:
        """Return the folder."""
        return home(str(super().convert(value, *about)), "folder")


FOLDER = Folder(file_okay=False)
# The option of every command that reads or keeps finished runs.
results_folder = click.option(
    "--results", "folder", type=FOLDER, help="Finished runs; by default in the cache."
)


def span(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 100 else f"{hours:,.0f} h"


from widemin.cli import run, tables  # noqa: E402  # their commands join `main`
