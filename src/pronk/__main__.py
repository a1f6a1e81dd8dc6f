"""`python -m pronk` -> the command line."""

import sys

if __name__ == "__main__":
    # Python looks into the current folder first here, and what lies there is the user's: a file random.py or queue.py
    # must not take the place of Python's own. With pronk itself in it, it stays.
    if not sys.flags.safe_path and sys.path[0] != __file__.rsplit("pronk", 1)[0][:-1]:
        del sys.path[0]

    from pronk.cli import main

    main()
