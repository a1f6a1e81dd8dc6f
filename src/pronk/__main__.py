"""`python -m pronk` -> the command line."""

from pronk.cli import main

if __name__ == "__main__":
    main()
