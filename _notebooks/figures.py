"Figures for a dark page, made from those for a light one, and both in 256 colours; made once, and kept in `build`."
import hashlib
import io
import os
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

ROOT = Path(__file__).resolve().parent.parent
VERSION = b'2'    # of what is made of a figure: another version is made anew
HUE = np.array([[-.574, 1.430, .144], [.426, .430, .144], [.426, 1.430, -.856]], 'float32')    # turns hues by half a circle (CSS filter effects)
GROUND = .13      # Brightness of the page
CELL = 4          # Pixels a side, of the squares in which pictures are looked for
LEAST, COLOURS, HUES = 100, 16, .2    # A picture such as a spectrogram has more squares, colours, and spread of hues (radians) than a bar or a table


def pictures_in(rgb):
    "Where a figure holds pictures, like spectrograms, whose colours mean something: a mask of its pixels."
    height, width = (n // CELL * CELL for n in rgb.shape[:2])
    cells = rgb[:height, :width].reshape(height // CELL, CELL, width // CELL, CELL, 3)
    full = (cells.min((1, 3, 4)) < .985) & (cells.min(4).max((1, 3)) < .985)    # squares without a white pixel
    solid = ndimage.binary_opening(full, np.ones((5, 5)))
    parts, _ = ndimage.label(solid)
    mean = cells.mean((1, 3))
    mask = np.zeros(parts.shape, bool)
    for number, box in enumerate(ndimage.find_objects(parts), 1):
        inside = parts[box] == number
        colours = mean[box][inside]
        red, green, blue = colours.T
        hues = np.arctan2(3 ** .5 * (green - blue), 2 * red - green - blue)
        if inside.sum() > LEAST and len(np.unique((16 * colours).astype(int), axis=0)) > COLOURS and hues.std() > HUES:
            mask[box] |= ndimage.binary_fill_holes(inside)
    grown = ndimage.binary_dilation(mask) & ~(cells.min((1, 3, 4)) > .985)
    pixels = np.zeros(rgb.shape[:2], bool)
    pixels[:height, :width] = grown.repeat(CELL, 0).repeat(CELL, 1)
    return pixels


def darken(data):
    "A PNG for a dark page: light and dark change places, hues stay, and so do pictures in it."
    rgb = np.asarray(Image.open(io.BytesIO(data)).convert('RGB'), 'float32') / 255
    turned = np.clip((1 - rgb) @ HUE.T, 0, 1) * (1 - GROUND) + GROUND
    out = np.where(pictures_in(rgb)[..., None], rgb, turned)
    return in_256_colours(Image.fromarray((255 * out).round().astype('uint8')))


def in_256_colours(image):
    "An image as PNG, a third as large as with all its colours; its resolution stays."
    file = io.BytesIO()
    image.quantize(256, dither=Image.Dither.NONE).save(file, 'PNG', dpi=image.info.get('dpi', (90, 90)))
    return file.getvalue()


def slim(data):
    "A PNG in 256 colours."
    return in_256_colours(with_dpi(Image.open(io.BytesIO(data))))


def with_dpi(image):
    "An RGB image that knows its resolution."
    rgb = image.convert('RGB')
    rgb.info['dpi'] = image.info.get('dpi', (90, 90))
    return rgb


def made_once(make, data, cache=ROOT / 'build/figures'):
    "What `make`, one of `slim` and `darken`, makes of a figure."
    path = cache / f'{make.__name__}-{hashlib.sha256(VERSION + data).hexdigest()[:20]}.png'
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f'.{os.getpid()}')
        part.write_bytes(make(data))
        part.rename(path)
    return path.read_bytes()
