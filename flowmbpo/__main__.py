"""`python -m flowmbpo`: the same entry point as the `flowmbpo` command."""

from flowmbpo.cli.app import main

if __name__ == "__main__":
    main()
