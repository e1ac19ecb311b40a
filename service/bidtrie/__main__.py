"""`python -m bidtrie` is the `bidtrie` command."""

from bidtrie.cli import main

if __name__ == "__main__":
    main()
