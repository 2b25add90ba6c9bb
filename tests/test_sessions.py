"Chapters 08b, 08d and 09: models from strangers are refused or harmless, one's own open at once, and taggers go to other processes."

import json
import multiprocessing
import os
import pickle
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import soundtag.sessions
from soundtag.distance import DISTANCE_MODEL, DistanceEstimator
from soundtag.models import ModelError
from soundtag.sessions import Graph, has_passed, open_session, remember
from soundtag.tagging import TAGGING_MODEL, Tagger, load_tagger

SR = 44100
NOISE = 0.1 * np.random.default_rng(0).standard_normal(SR)
METADATA = {
    'labels': ['a', 'b'],
    'sr': 8000,
    'seconds': 1.0,
    'fill': 'pad',
    'trim_db': None,
    'temperature': 1.0,
    'unknown': 0.0,
    'thresholds': None,
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    "What passed in one test is a stranger in the next."
    monkeypatch.setenv('SOUNDTAG_CACHE', str(tmp_path / 'cache'))


def onnx_file(path, nodes, arrays=(), *, domain='', change=None, **metadata):
    "A file from samples (n, 8000) to probabilities (n, 2); the last node makes `p`."
    put = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        'g',
        [put('audio', TensorProto.FLOAT, ['n', 8000])],
        [put('p', TensorProto.FLOAT, ['n', 2])],
        list(arrays),
    )
    opsets = [helper.make_opsetid(name, 15) for name in {'', domain}]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    helper.set_model_props(model, {'soundtag': json.dumps(METADATA | metadata)})
    if change:
        change(model)
    path.write_bytes(model.SerializeToString())
    return path


WEIGHTS = numpy_helper.from_array(np.ones((8000, 2), 'float32') / 8000, 'w')
LINEAR = [helper.make_node('MatMul', ['audio', 'w'], ['z']), helper.make_node('Softmax', ['z'], ['p'])]


def array(name, *values, kind='int64'):
    return numpy_helper.from_array(np.array(values, kind), name)


def loop(path):
    "For ever, adding nothing."
    node, put = helper.make_node, helper.make_tensor_value_info
    inner = helper.make_graph(
        [node('Identity', ['go'], ['on']), node('Identity', ['y'], ['z2'])],
        'inner',
        [put('i', TensorProto.INT64, []), put('go', TensorProto.BOOL, []), put('y', TensorProto.FLOAT, ['n', 2])],
        [put('on', TensorProto.BOOL, []), put('z2', TensorProto.FLOAT, ['n', 2])],
    )
    many = numpy_helper.from_array(np.int64(2**62), 'many')
    yes = numpy_helper.from_array(np.True_, 'yes')
    return onnx_file(path, [*LINEAR[:1], node('Loop', ['many', 'yes', 'z'], ['p'], body=inner)], [WEIGHTS, many, yes])


def doubled(path):
    "A second, 22 times beside itself: 130 GB."
    names = ['audio', *(f'x{i}' for i in range(22))]
    nodes = [helper.make_node('Concat', [a, a], [b], axis=1) for a, b in zip(names, names[1:])]
    return onnx_file(path, [*nodes, helper.make_node('ReduceMax', [names[-1]], ['p'], axes=[1])])


def endless_products(path):
    "A matrix of 4,000 rows times itself, a hundred times."
    names = ['square', *(f'x{i}' for i in range(100))]
    nodes = [helper.make_node('MatMul', [a, 'square'], [b]) for a, b in zip(names, names[1:])]
    last = [helper.make_node('ReduceMean', [names[-1]], ['m'], axes=[0, 1]), helper.make_node('Add', ['z', 'm'], ['p'])]
    # by way of the sound, or all would be computed when it is opened
    square = [helper.make_node('ReduceMax', ['audio'], ['t']), helper.make_node('Mul', ['one', 't'], ['square'])]
    one = numpy_helper.from_array(np.full((4000, 4000), 1e-3, 'float16'), 'half')
    cast = [helper.make_node('Cast', ['half'], ['one'], to=TensorProto.FLOAT)]
    return onnx_file(path, [*LINEAR[:1], *cast, *square, *nodes, *last], [WEIGHTS, one])


def foreign(path):
    node = helper.make_node('Gelu', ['z'], ['p'], domain='com.microsoft')
    return onnx_file(path, [LINEAR[0], node], [WEIGHTS], domain='com.microsoft')


def drawn(path):
    nodes = [LINEAR[0], helper.make_node('RandomNormalLike', ['z'], ['r']), helper.make_node('Softmax', ['r'], ['p'])]
    return onnx_file(path, nodes, [WEIGHTS])


def elsewhere(path):
    weights = TensorProto(name='w', data_type=1, dims=[8000, 2], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key='location', value='secret')
    return onnx_file(path, LINEAR, [weights])


def vast(path):
    return onnx_file(path, LINEAR, [WEIGHTS, TensorProto(name='v', data_type=1, dims=[10**9, 10**9])])


def many_nodes(path):
    nodes = [helper.make_node('Identity', ['audio'], [f'x{i}']) for i in range(6000)]
    return onnx_file(path, [*nodes, *LINEAR], [WEIGHTS])


@pytest.mark.parametrize(
    'make, why',
    [
        (loop, 'Loop'),
        (doubled, 'too much memory'),
        (endless_products, 'more than 1 s'),
        (foreign, 'com.microsoft'),
        (drawn, 'RandomNormalLike'),
        (elsewhere, 'arrays in other files'),
        (vast, 'numbers'),
        (many_nodes, 'nodes'),
    ],
    ids=lambda x: getattr(x, '__name__', ''),
)
def test_graphs_that_ours_never_are(tmp_path, monkeypatch, make, why):
    monkeypatch.setattr(soundtag.sessions, 'TRIAL_SECONDS', 1)
    path = make(tmp_path / 'x.onnx')
    before = time.process_time()
    with pytest.raises(ModelError, match=f'x.onnx: refused, .*{why}.*--trust') as error:
        load_tagger(path)
    assert '\n' not in str(error.value) and time.process_time() - before < 2


def nothing(model):
    weights = model.graph.initializer[0]
    weights.CopyFrom(numpy_helper.from_array(np.full((8000, 2), np.nan, 'float32'), 'w'))


@pytest.mark.parametrize(
    'nodes, change, why',
    [
        (LINEAR, nothing, 'no numbers'),
        ([LINEAR[0], helper.make_node('Cos', ['z'], ['p'])], None, 'do not sum to 1'),
        ([LINEAR[0], helper.make_node('Sub', ['z', 'c'], ['p'])], None, 'below 0'),
        ([LINEAR[0], helper.make_node('ReduceMax', ['z'], ['p'], axes=[1])], None, 'other labels'),
    ],
)
def test_answers_are_looked_at(tmp_path, nodes, change, why):
    arrays = [WEIGHTS, array('c', 3, kind='float32')]
    path = onnx_file(tmp_path / 'x.onnx', nodes, arrays, change=change)
    with pytest.raises(ModelError, match=f'x.onnx.*{why}'):
        load_tagger(path)


def test_answers_are_looked_at_later_too(tmp_path):
    "Fine for the noise and the silence of the trial, nonsense for what is louder."
    nodes = [
        helper.make_node('ReduceMax', ['audio'], ['t'], axes=[1], keepdims=1),
        helper.make_node('Greater', ['t', 'c'], ['loud']),
        helper.make_node('Where', ['loud', 'bad', 'good'], ['p']),
    ]
    arrays = [array('c', 0.9, kind='float32'), array('bad', [9, 9], kind='float32'), array('good', [0.5, 0.5], kind='float32')]
    tagger = load_tagger(onnx_file(tmp_path / 'x.onnx', nodes, arrays))
    assert tagger.tag(np.full(8000, 0.1) * np.sin(np.arange(8000)), 8000)[0][1] == 0.5
    with pytest.raises(ModelError, match='do not sum to 1'):
        tagger.tag(np.sin(np.arange(8000)), 8000)


def test_who_trusts_may_open_more(tmp_path):
    tagger = load_tagger(drawn(tmp_path / 'x.onnx'), trust=True)
    assert {label for label, _ in tagger.tag(np.sin(np.arange(8000)), 8000)} == {'a', 'b'}


def test_the_bundled_models_are_opened_without_a_trial(monkeypatch, tmp_path):
    def fail(*args):
        raise AssertionError('a trial')

    monkeypatch.setattr(soundtag.sessions, 'try_out', fail)
    load_tagger()
    DistanceEstimator.load()
    (tmp_path / 'copy.onnx').write_bytes(TAGGING_MODEL.read_bytes())
    with pytest.raises(ModelError):
        load_tagger(tmp_path / 'copy.onnx')
    remember((tmp_path / 'copy.onnx').read_bytes())
    load_tagger(tmp_path / 'copy.onnx')


def test_a_stranger_is_tried_once(tmp_path):
    path = tmp_path / 'copy.onnx'
    path.write_bytes(TAGGING_MODEL.read_bytes())
    assert not has_passed(path.read_bytes())
    load_tagger(path)
    assert has_passed(path.read_bytes())
    path = tmp_path / 'far.onnx'
    path.write_bytes(DISTANCE_MODEL.read_bytes())
    DistanceEstimator.load(path)
    assert has_passed(path.read_bytes())


def test_a_cache_that_cannot_be_written_costs_a_trial_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / 'file').write_bytes(b'')
    monkeypatch.setenv('SOUNDTAG_CACHE', str(tmp_path / 'file'))
    path = tmp_path / 'copy.onnx'
    path.write_bytes(TAGGING_MODEL.read_bytes())
    assert load_tagger(path).labels == load_tagger().labels


def test_a_trial_does_not_import_what_lies_beside_the_caller(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'soundtag.py').write_text('raise SystemExit(3)')
    (tmp_path / 'onnxruntime.py').write_text('raise SystemExit(3)')
    (tmp_path / 'copy.onnx').write_bytes(TAGGING_MODEL.read_bytes())
    load_tagger('copy.onnx')


def test_graphs_are_read_as_onnx_reads_them():
    import onnx

    for path in (TAGGING_MODEL, DISTANCE_MODEL):
        graph = Graph(path.read_bytes())
        proto = onnx.load(path)
        assert graph.nodes == len(proto.graph.node) and not graph.foreign
        arrays = list(proto.graph.initializer)
        arrays += [a.t for n in proto.graph.node for a in n.attribute if a.HasField('t')]
        assert graph.numbers == sum(int(np.prod(a.dims)) for a in arrays)
        assert graph.metadata == proto.metadata_props[0].value


# In other processes


def tag_noise(tagger):
    return tagger.tag(NOISE, SR)


INHERITED = None  # A tagger, in a process that is forked


def tag_inherited(_):
    return INHERITED.tag(NOISE, SR)


def explain_failure(name):
    try:
        return tag_inherited(name) if name is None else Tagger.load(name).tag(NOISE, SR)
    except ModelError as e:
        return str(e)


def in_pool(kind, function, *things):
    with multiprocessing.get_context(kind).Pool(1) as pool:
        return pool.map_async(function, things).get(60)


def test_a_pickled_tagger_answers_the_same(tmp_path, monkeypatch):
    path = tmp_path / 'copy.onnx'
    path.write_bytes(TAGGING_MODEL.read_bytes())
    monkeypatch.chdir(tmp_path)
    tagger = Tagger.load('copy.onnx', trust=True)
    monkeypatch.chdir('/')
    sent = pickle.dumps(tagger)
    assert len(sent) < 5000
    assert pickle.loads(sent).tag(NOISE, SR) == tagger.tag(NOISE, SR)
    far = pickle.loads(pickle.dumps(DistanceEstimator.load()))
    assert far.distance(NOISE, SR) == DistanceEstimator.load().distance(NOISE, SR)
    path.write_bytes(path.read_bytes() + b'\0')
    with pytest.raises(ModelError, match='copy.onnx: has changed since'):
        pickle.loads(sent).tag(NOISE, SR)


def test_a_tagger_made_of_a_function_says_that_it_stays():
    tagger = Tagger(lambda X: np.ones((len(X), 1)), ['a', 'b'], sr=8000, seconds=1)
    with pytest.raises((pickle.PicklingError, AttributeError), match="Can't (pickle|get) local object"):
        pickle.dumps(tagger)


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='has no fork')
@pytest.mark.parametrize('kind', ['fork', 'spawn'])
def test_a_tagger_goes_to_a_pool(kind):
    tagger = Tagger.load()
    assert in_pool(kind, tag_noise, tagger) == [tagger.tag(NOISE, SR)]


def test_a_tagger_goes_to_joblib():
    from joblib import Parallel, delayed

    tagger = Tagger.load()
    assert Parallel(2)([delayed(tag_noise)(tagger)] * 2) == [tagger.tag(NOISE, SR)] * 2


@pytest.fixture(scope='module')
def young_run(tmp_path_factory):
    "A run that has learned nothing: config.json and one network."
    import soundtag.model
    from soundtag.recipe import RECIPES

    run = tmp_path_factory.mktemp('run')
    recipe = RECIPES['post']
    config = {
        'recipe': recipe.settings,
        'selection': 'none',
        'data': {'name': 'x', 'fingerprint': 'x', 'clips': 2, 'labels': 2, 'root': '/'},
        'folds': {'number': 1, 'kind': 'none'},
        'seed': 0,
        'versions': {},
    }
    (run / 'config.json').write_text(json.dumps(config))
    (run / 'labels.json').write_text('["a", "b"]')
    network = soundtag.model.post_cnn(2)
    stats = np.zeros((40, 1, 1)), np.ones((40, 1, 1))
    soundtag.model.standardized(network, *stats).save(run / 'best_0.keras')
    return run


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='has no fork')
def test_keras_in_a_forked_process_says_so_at_once(young_run, monkeypatch):
    "It hung for ever, inherited or loaded there."
    tagger = Tagger.load(young_run)
    answer = tagger.tag(NOISE, SR)
    monkeypatch.setitem(globals(), 'INHERITED', tagger)
    inherited, own = in_pool('fork', explain_failure, None, str(young_run))
    for text in (inherited, own):
        assert 'forked' in text and 'spawn' in text and '\n' not in text
    assert pickle.loads(pickle.dumps(tagger)).tag(NOISE, SR) == answer


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='has no fork')
def test_a_tagger_is_inherited_by_a_forked_process(monkeypatch):
    tagger = Tagger.load()
    answer = tagger.tag(NOISE, SR)
    monkeypatch.setitem(globals(), 'INHERITED', tagger)
    assert in_pool('fork', tag_inherited, 0) == [answer]


# Keras


def altered(run, path, change=None, more=()):
    "The network of a run with another description, and other files beside it."
    with zipfile.ZipFile(run / 'best_0.keras') as old, zipfile.ZipFile(path, 'w') as new:
        for name in old.namelist():
            data = old.read(name)
            if name == 'config.json' and change:
                config = json.loads(data)
                change(config)
                data = json.dumps(config)
            new.writestr(name, data)
        for name, data in more:
            new.writestr(name, data)
    return path


def inner_layers(config):
    return config['config']['layers'][2]['config']['layers']


def wide(config):
    inner_layers(config)[-1]['config']['units'] = 10**9


def unbuilt(config):
    del inner_layers(config)[-1]['build_config']


def lookup(config):
    inner_layers(config)[1] = {'class_name': 'StringLookup', 'module': 'keras.layers', 'config': {'vocabulary': '/etc/passwd'}}


def alias(config):
    inner_layers(config)[1]['registered_name'] = 'other>Layer'


def orthogonal(config):
    inner_layers(config)[1]['config']['kernel_initializer'] = {'class_name': 'Orthogonal', 'module': 'keras.initializers', 'config': {}}


def deep(config):
    config['more'] = [{'inbound_nodes': [], 'class_name': 'ReLU', 'module': 'keras.layers'}] * 2000


def long(config):
    config['more'] = 'x' * 4_000_000


@pytest.mark.parametrize(
    'change, more, why',
    [
        (wide, (), 'weights'),
        (unbuilt, (), 'damaged'),
        (lookup, (), 'StringLookup'),
        (alias, (), 'Conv2D'),
        (orthogonal, (), 'Orthogonal'),
        (deep, (), 'layers'),
        (long, (), '4 MB'),
        (None, [('assets/x.txt', 'x')], 'other files'),
    ],
    ids=lambda x: getattr(x, '__name__', ''),
)
def test_keras_models_that_ours_never_are(young_run, tmp_path, change, more, why):
    from soundtag.models import read_model

    path = altered(young_run, tmp_path / 'x.keras', change, more)
    with pytest.raises(ModelError, match=f'x.keras: .*{why}') as error:
        read_model(path)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('kind', ['vast', 'linked', 'external'])
def test_weights_are_looked_up_before_they_are_read(young_run, tmp_path, kind):
    import h5py

    from soundtag.models import read_model

    with zipfile.ZipFile(young_run / 'best_0.keras') as z:
        z.extract('model.weights.h5', tmp_path)
    h5_path = tmp_path / 'model.weights.h5'
    with h5py.File(h5_path, 'a') as h5:
        if kind == 'vast':
            h5.create_dataset('v', (10**5, 10**5), 'float32', chunks=(100, 100), compression='gzip')
        elif kind == 'linked':
            h5['v'] = h5py.ExternalLink('/etc/passwd', '/')
        else:
            h5.create_dataset('v', (4,), 'uint8', external=[('/etc/passwd', 0, 4)])
    with zipfile.ZipFile(young_run / 'best_0.keras') as old, zipfile.ZipFile(tmp_path / 'x.keras', 'w') as new:
        new.writestr('config.json', old.read('config.json'))
        new.writestr('metadata.json', old.read('metadata.json'))
        new.write(h5_path, 'model.weights.h5')
    with pytest.raises(ModelError, match='x.keras: refused, its weights'):
        read_model(tmp_path / 'x.keras')


def test_what_our_networks_are_made_of_passes(young_run):
    from soundtag.models import read_model

    assert read_model(young_run / 'best_0.keras').output_shape == (None, 2)


# LiteRT


def test_litert_files_that_ours_never_are(tmp_path):
    "A function with a loop in it, as TensorFlow writes it."
    tf = pytest.importorskip('tensorflow')

    @tf.function(input_signature=[tf.TensorSpec((1, 8000))])
    def count(x):
        i = tf.reduce_max(x)
        while i < 1e9:
            i = i * 1.0
        return tf.stack([i, i])[None]

    data = tf.lite.TFLiteConverter.from_concrete_functions([count.get_concrete_function()]).convert()
    path = tmp_path / 'x.tflite'
    path.write_bytes(data)
    with zipfile.ZipFile(path, 'a') as z:
        z.writestr('soundtag.json', json.dumps(METADATA))
    with pytest.raises(ModelError, match='x.tflite: refused, it holds .*--trust'):
        open_session(path)


def test_a_litert_file_that_brings_the_library_down_is_one_line(tmp_path, monkeypatch):
    "The trial ends in a crash, not this process."
    monkeypatch.setattr(soundtag.sessions, 'TRIAL', 'import os; os.abort()')
    path = tmp_path / 'copy.onnx'
    path.write_bytes(TAGGING_MODEL.read_bytes())
    with pytest.raises(ModelError, match='copy.onnx: refused, it ended in a crash'):
        open_session(path)
    assert Path(path).exists()
