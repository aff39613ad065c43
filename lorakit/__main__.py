"""`python -m lorakit`: the command line, as accelerate's launcher starts it."""

from lorakit.cli import main

if __name__ == "__main__":
    main()
