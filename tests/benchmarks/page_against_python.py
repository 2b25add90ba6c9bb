"""Does the page that listens say what Python says, of every real clip?
python tests/benchmarks/page_against_python.py DATA [--docs _docs] [--out nbs/results/page.json]

DATA holds FSDKaggle2018/ (wav) and ESC-10/ (ogg), as SOUNDTAG_DATA does; --docs is the site as `make site` builds it. Headless
Chromium opens the page, is given one clip after the other, and its probabilities are compared with those of the model in the box
on ONNX Runtime in Python. Time is that from the file's choice to the answer, on the page's own clock.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

from soundtag.tagging import load_tagger

ROOT = Path(__file__).resolve().parents[2]
NOTE = '''window.heard = [];
addEventListener("DOMContentLoaded", () => document.getElementById("listen").addEventListener("answer", e => heard.push({...e.detail, at: performance.now()})));
addEventListener("change", () => { window.chosen = performance.now() }, true);'''


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def compare(tab, tagger, path):
    "Largest difference of a probability, whether the top three are the same, and how long the page took in s."
    tab.evaluate('heard = []')
    tab.set_input_files('#file', path)
    tab.wait_for_function('heard.length')
    answer = tab.evaluate('heard[0]')
    p, best = tagger.probabilities(path), [label for label, _ in tagger.tag(path)]
    return (
        float(np.abs(np.array(answer['p']) - p).max()),
        [label for label, _ in answer['best']] == best,
        (answer['at'] - tab.evaluate('chosen')) / 1000,
    )


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument('data', type=Path)
    p.add_argument('--docs', type=Path, default=ROOT / '_docs')
    p.add_argument('--out', type=Path)
    args = p.parse_args()
    paths = sorted(
        [
            *args.data.glob('FSDKaggle2018/FSDKaggle2018.audio_train/*.wav'),
            *args.data.glob('ESC-10/audio/*.ogg'),
        ]
    )
    tagger, http = (
        load_tagger(ROOT / 'soundtag/bundled/sounds.onnx'),
        ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=args.docs)),
    )
    threading.Thread(target=http.serve_forever, daemon=True).start()
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=shutil.which('chromium') or shutil.which('google-chrome'),
            args=['--no-sandbox'],
        )
        tab = browser.new_page()
        tab.add_init_script(NOTE)
        tab.goto(f'http://127.0.0.1:{http.server_port}/listen.html')
        tab.wait_for_selector('#listen[data-ready]')
        apart, same, took = zip(*(compare(tab, tagger, path) for path in paths))
        result = {
            'clips': len(paths),
            'same_top3': sum(same),
            'largest_difference': max(apart),
            'seconds': {'median': statistics.median(took), 'max': max(took)},
            'browser': browser.version,
            'machine': f'{platform.machine()}, {os.cpu_count()} cores',
        }
        browser.close()
    text = json.dumps(result, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + '\n', 'utf-8')


if __name__ == '__main__':
    main()
