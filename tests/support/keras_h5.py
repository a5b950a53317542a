"""Weight files as Keras 2 writes them, from the layer and weight names of the genuine model."""

import golden
import h5py
import numpy as np

MANIFEST = golden.load_json("weights_manifest_small")


def numbered_arrays():
    """An array for each weight of the small model, "<group>/<weight name>" to a value of its own."""
    arrays = {}
    for group, weights in MANIFEST["weights"].items():
        for name, shape in weights.items():
            arrays[group, name] = np.full(shape, (len(arrays) + 1) / 1024, np.float32)
    return arrays


def write(path, arrays, layer_names, inside=None):
    """Write `arrays`, (group, weight name) to array, in the order of `layer_names`.

    A layer without weights gets a group with an empty list, as Keras writes it. `inside` is the name of the group
    that full-model files keep the weights in.
    """
    with h5py.File(path, "w") as file:
        root = file.create_group(inside) if inside else file
        if inside:  # the architecture and the optimiser stand beside the weights
            file.attrs["model_config"] = b'{"class_name": "Model"}'
            file.create_group("optimizer_weights").create_dataset("iterations:0", data=np.int64(3))
        root.attrs["layer_names"] = np.array([name.encode() for name in layer_names])
        root.attrs["backend"] = MANIFEST["backend"].encode()
        root.attrs["keras_version"] = MANIFEST["keras_version"].encode()
        for layer in layer_names:
            group = root.create_group(layer)
            names = [name for owner, name in arrays if owner == layer]
            group.attrs["weight_names"] = np.array([name.encode() for name in names]) if names else np.zeros(0)
            for name in names:
                group.create_dataset(name, data=arrays[layer, name])
