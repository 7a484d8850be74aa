"""Generated panoramas with annotation, in files as MarsScapes publishes them."""

import hashlib
import io
import zipfile
from collections import Counter

import numpy as np
from PIL import Image

from skmars.datasets._marsscapes import read_manifest

COLOURS = read_manifest()["label_colours"]
LABELS = {"soil": 1, "gravel": 1, "bedrock": 2, "sand": 3, "big rock": 4}
ZIP = "/annotation/semantic.zip"


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png")
    return file.getvalue()


def facts(content):
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def make_world():
    """Three generated panoramas: their manifest, the files to serve, and the arrays in them."""
    rng = np.random.default_rng(0)
    palette = np.array([*COLOURS.values(), (0, 85, 0)], np.uint8)  # and one that is not listed
    arrays, rows, files, archive = {}, [], {}, io.BytesIO()
    shapes = {"1_1": (241, 300), "1_2": (60, 101), "2_1": (75, 131)}
    with zipfile.ZipFile(archive, "w") as labels:
        for name, (height, width) in shapes.items():
            image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            coarse = rng.choice([*range(9), 10], (height // 7 + 1, width // 7 + 1))
            classes = np.kron(coarse, np.ones((7, 7), int))[:height, :width]
            classes[:, :20] = 9
            annotation = palette[classes]
            labels.writestr(f"semantic/{name}_color.png", png(annotation))
            arrays[name] = image, classes
            files[f"/image/{name}.png"] = content = png(image)
            sol, subset = int(name[0]), "train" if name[0] == "1" else "test"
            rows.append({"name": name, "sol": sol, "subset": subset, **facts(content)})
    files[ZIP] = archive.getvalue()
    member = "semantic/{name}_color.png"
    manifest = {
        "images": "http://127.0.0.1:1/{name}.png",
        "labels": {"url": "http://127.0.0.1:1/l.zip", "member": member, **facts(files[ZIP])},
        "label_colours": COLOURS,
        "panoramas": rows,
    }
    return manifest, files, arrays


def naive_tiles(image, classes, tile, scale, stride, max_void):
    """Tiles by plain loops: Rec. 601 luma, means rounded along rows and then columns, majority."""
    names = [*COLOURS, "unlisted"]
    height, width = image.shape[0] // scale, image.shape[1] // scale
    luma = np.floor((image @ np.array([19595, 38470, 7471], np.int64) + 32768) / 65536)
    grey, labels = np.empty((height, width)), np.empty((height, width), int)
    for i in range(height):
        for j in range(width):
            block = np.s_[i * scale : (i + 1) * scale, j * scale : (j + 1) * scale]
            grey[i, j] = np.floor(np.floor(luma[block].mean(1) + 0.5).mean() + 0.5)
            counts = Counter(LABELS.get(names[k], 0) for k in classes[block].ravel())
            labels[i, j] = max(range(5), key=lambda label, c=counts: (c[label], -label))
    found = []
    for i in range(0, height - tile[0] + 1, stride[0]):
        for j in range(0, width - tile[1] + 1, stride[1]):
            part = np.s_[i : i + tile[0], j : j + tile[1]]
            fine = classes[i * scale : (i + tile[0]) * scale, j * scale : (j + tile[1]) * scale]
            if (fine == list(COLOURS).index("void")).mean() <= max_void:
                found.append((grey[part], labels[part], (i, j)))
    return found
