"""`python -m everymode`: the same as the `everymode` command."""

from everymode.cli import main

if __name__ == "__main__":
    main()
