"""Tells what a sound is, and how far away, from a recording.

>>> import soundtag
>>> 'tag' in dir(soundtag)
True

Everything is imported when it is first asked for, so that `import soundtag` costs nothing.
`soundtag.tag('bell.wav')` names a sound, `soundtag.timeline('night.wav')` tells what happens when.
"""

__version__ = "0.1.0"

from importlib import import_module
from sys import modules
from types import ModuleType

from soundtag.front import document_module

_HOMES = {
    'DistanceEstimator': 'distance',
    'LogMel': 'mfcc',
    'MFCC': 'mfcc',
    'Recipe': 'training',
    'SoundClassifier': 'classifier',
    'Tagger': 'tagging',
    'Timeline': 'timeline',
    'load_audio': 'audio',
    'load_clips': 'dataset',
    'load_run': 'results',
    'mini': 'dataset',
    'prepare_data': 'store',
    'train_folds': 'training',
}
_CALLABLE = 'download', 'embed', 'explain', 'export', 'search', 'timeline'  # Functions whose module has their name
__all__ = sorted([*_HOMES, *_CALLABLE, 'tag'])


def tag(audio, sr=None, *, model=None, top=3, threshold=None):
    """Name a sound: the most probable labels with their probabilities, best first.

    `audio` is a sound file, a list of them, or samples of shape (n,) or (channels, n) at `sr` Hz;
    `model` the folder of a run, an exported file, 'yamnet', or None for the model that soundtag
    brings along. A sound of which no label reaches `threshold` is unknown; None leaves that
    to the model. Gives [(label, probability), …], for a list such a list a file. Raises AudioError
    or ModelError. To name sounds one by one, load a `Tagger` once.

    >>> import numpy as np
    >>> import soundtag
    >>> soundtag.tag(np.zeros(44100), 44100)
    [('silence', 1.0)]
    """
    from dataclasses import replace

    from soundtag.tagging import Tagger

    tagger = replace(Tagger.load(model), threshold=threshold)
    return tagger.tag(audio, sr, top=top)


class _CallableModule(ModuleType):
    "A module that is called like the function of the same name in it."

    def __call__(self, *args, **kwargs):
        name = self.__name__.rpartition('.')[2]
        if name == 'timeline':
            args = _with_tagger(*args, model=kwargs.pop('model', None))
        return getattr(self, name)(*args, **kwargs)


def _with_tagger(first, *rest, model):
    "What `timeline` takes: a tagger comes first, that of `model` where none was given."
    from soundtag.tagging import Tagger

    if isinstance(first, Tagger):
        return first, *rest
    return Tagger.load(model), first, *rest


class _Package(ModuleType):
    """Sees each module that is imported.

    `help()` of what is in it says what parameters mean, and `soundtag.export(…)` is a call also
    after `import soundtag.export` has put the module there.
    """

    def __setattr__(self, name, value):
        if isinstance(value, ModuleType):
            document_module(value)
            if name in _CALLABLE:
                value.__class__ = _CallableModule
        super().__setattr__(name, value)


def __getattr__(name):
    if name in _HOMES:
        return getattr(import_module(f'soundtag.{_HOMES[name]}'), name)
    if name in _CALLABLE:
        return import_module(f'soundtag.{name}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__():
    return [*__all__, '__version__']


modules[__name__].__class__ = _Package
