"""`python -m nrccr` is the command `nrccr`."""

from __future__ import annotations

from nrccr.cli.app import main

if __name__ == "__main__":
    main()
