"""The command ``thalweg``, also as ``python -m thalweg``."""

import sys
from collections.abc import Sequence

# What the command needs beyond the library, by the name it is imported under.
_EXTRA = (
    *("typer", "click", "rich", "matplotlib", "jinja2", "markupsafe"),
    *("pydantic", "pydantic_core", "grain", "orbax"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status.

    Args:
        arguments: Those of the process unless given.
    """
    try:
        from thalweg.cli import run

        return run(arguments)
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        print(
            f"thalweg: error: the command needs {package}, which is not installed; "
            'run: pip install "thalweg[cli]"',
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("thalweg: interrupted before anything was done", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
