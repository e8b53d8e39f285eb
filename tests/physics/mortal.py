"""Work of which one item costs the process its life; apart from its test, so that each new process imports this and nothing else."""

import os
import signal


def dies(number):
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return -number
