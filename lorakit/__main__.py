"""`python -m lorakit`: what accelerate launches."""

from lorakit.cli import main

if __name__ == "__main__":
    main()
