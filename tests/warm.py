"""Processes that begin with TensorFlow and its like imported, so that to start one takes no time.

They are forked from one that has imported them, has run nothing and has no threads. Of soundtag nothing is imported.
"""

import gc
import multiprocessing
import os
import sys
from pathlib import Path

os.environ['OMP_NUM_THREADS'] = '1'  # or OpenBLAS begins threads when it is imported
os.environ['JE_ARROW_MALLOC_CONF'] = 'background_thread:false'  # and PyArrow, which pandas imports where it is installed
context = multiprocessing.get_context('forkserver')
context.set_forkserver_preload(
    [
        'filelock',
        'ipykernel.kernelapp',
        'joblib',
        'librosa.core',
        'librosa.feature',
        'matplotlib.backends.backend_agg',
        'matplotlib.figure',
        'numba',
        'pandas',
        'pytest',
        'scipy.signal',
        'scipy.stats',
        'sklearn.linear_model',
        'soundfile',
        'tensorboard.plugins.histogram.summary',
        'tensorflow',
        'tqdm.auto',
        'warm_numba',
    ]
)


def begin(ready, stderr, target, args):
    "Become a process as a program is one: with a session of its own, and without the folder of the tests on its path."
    os.setsid()
    gc.freeze()  # what is imported is not looked through at each collection, of which Keras asks for one a training
    tasks = Path(f'/proc/{os.getppid()}/task')
    threads = len(list(tasks.iterdir())) if tasks.exists() else 1
    ready.send(threads)
    ready.close()
    sys.path.remove(str(Path(__file__).parent))
    if stderr:
        with open(stderr, 'w') as file:
            os.dup2(file.fileno(), 2)
    target(*args)


class Forked(context.Process):
    "A process in which `target(*args)` runs; it knows as much of `subprocess.Popen` as tests and Jupyter want."

    stdin = stdout = stderr = None

    def __init__(self, target, *args, stderr=None):
        here, there = context.Pipe(duplex=False)
        super().__init__(target=begin, args=(there, stderr, target, args))
        self.start()
        there.close()
        threads = here.recv()
        assert threads == 1, f'it was forked from a process of {threads} threads, and got one'

    def poll(self):
        return self.exitcode

    def wait(self, timeout=None):
        self.join(timeout)
        return self.exitcode

    def send_signal(self, number):
        os.kill(self.pid, number)


def nothing(canvas):
    "Draw nothing."


def kernel(folder, env, words):
    "What `python -m ipykernel_launcher` does."
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    import matplotlib
    from ipykernel.kernelapp import launch_new_instance

    inline = os.environ.setdefault('MPLBACKEND', 'module://matplotlib_inline.backend_inline')
    matplotlib.rcParams['backend'] = inline  # as it would be if matplotlib were imported from here on
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg.draw_idle = nothing  # after each cell, of pictures that are then drawn to be shown
    launch_new_instance([*words, f'--IPKernelApp.parent_handle={os.getppid()}'])


def launch_kernel(cmd, cwd=None, env=None, **_):
    "In the place of `jupyter_client.launcher.launch_kernel`."
    return Forked(kernel, cwd, env, cmd[cmd.index('-f') :])
