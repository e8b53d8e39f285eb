"""The command line from its first moment on: Ctrl-C while the libraries are loaded ends it as it does later, in a word and with 130."""

import os
import signal


def _leave(number: int, frame: object) -> None:
    os.write(2, b"interrupted\n")
    os._exit(130)  # an exception would be lost, or a trace, in whichever library is being loaded; nothing was begun yet


def main() -> None:
    """Load the command line and run it."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from spectramind_nb.apps.cli import main as command_line

    signal.signal(signal.SIGINT, before)
    command_line()


if __name__ == "__main__":
    main()
