"""`python -m gradpot` is `gradpot`."""

from gradpot.cli import main

if __name__ == "__main__":
    main()
