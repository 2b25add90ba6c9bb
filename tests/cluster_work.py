"What the tests of a cluster have workers do: each worker that is started imports this, so it is short."

import os
import time

from soundtag.store import compute_clip


def slowly(item):
    time.sleep(0.01)
    return 2 * item


def deadly(path, known, **settings):
    if path.endswith('07.wav'):
        time.sleep(0.7)  # as one that runs out of memory
        os.kill(os.getpid(), 9)
    return compute_clip(path, known, **settings)
