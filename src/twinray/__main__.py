"""``python -m twinray VERB ...``: the command line."""

from twinray.cli import main

main()
