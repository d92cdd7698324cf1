"""`python -m dl_lab` is the `dl-lab` command."""

from dl_lab.cli import main

if __name__ == "__main__":
    main()
