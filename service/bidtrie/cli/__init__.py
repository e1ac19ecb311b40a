"""The `bidtrie` command. Each command is a module; heavy imports wait until a command needs them."""

import sys

from bidtrie.errors import BidtrieError, InvalidInput


def main() -> None:
    """Run the command line; errors that users can mend are printed as one line each, exit code 2."""
    from bidtrie.cli.app import app

    try:
        app()
    except InvalidInput as error:
        for violation in error.violations:
            print(f"bidtrie: {violation.field}: {violation.description}", file=sys.stderr)
        sys.exit(2)
    except BidtrieError as error:
        print(f"bidtrie: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
