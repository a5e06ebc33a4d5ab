"""`python -m pscr_engine`."""

from .cli import main

main()
