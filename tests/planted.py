"""pytest on a copy of the package, in a fork of a process that imported the rest.

It must import nothing of widemin, whose planted copy is imported after the fork.
"""

import os
import sys
import traceback

# What takes seconds to import and is the same for every copy.
PRELOADED = ["pytest", "torch", "pandas", "scipy.stats", "sklearn.datasets"]
PRELOADED += ["matplotlib.pyplot", "click", "yaml", "tests.planted"]
BROKEN = 70  # exit status where pytest itself did not run


def run_tests(folder, tests):
    """Exit with pytest's status, or BROKEN; what it says is in the folder's `said`."""
    import pytest

    for name in list(sys.modules):
        if name.partition(".")[0] in ("tests", "widemin"):
            del sys.modules[name]
    os.chdir(folder)
    sys.path.insert(0, folder)
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        del os.environ[name]
    os.environ |= {"PYTHONPATH": folder, "OMP_NUM_THREADS": "1"}
    with open("said", "w") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    options = ["-x", "-q", "-p", "no:cacheprovider", "--basetemp", f"{folder}/tmp"]
    status = BROKEN
    try:
        status = int(pytest.main([*options, *tests]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)
