"""Run `python -m reyes` like the `reyes` command."""

from reyes.cli import main

main()
