"""`python -m npprelnorm`: the same commands as the console script."""

from .commands import main

if __name__ == "__main__":
    raise SystemExit(main())
