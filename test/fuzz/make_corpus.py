"""Makes the seeds in corpus/: small inputs that reach every branch of what reads them, right and wrong.

Standard library only; the same bytes on every run: python3 make_corpus.py
"""

import json
import os
import struct

HERE = os.path.dirname(os.path.abspath(__file__))
FIXTURES = os.path.join(HERE, "..", "fixtures")


def write(folder, name, data):
    os.makedirs(os.path.join(HERE, "corpus", folder), exist_ok=True)
    with open(os.path.join(HERE, "corpus", folder, name), "wb") as file:
        file.write(data)


def config(name):
    with open(os.path.join(FIXTURES, name, "config.json"), encoding="utf-8") as file:
        return json.load(file)


def compact(value):
    return json.dumps(value, separators=(",", ":")).encode()


def make_configs():
    nine_b, tiny = config("nine-b"), config("tiny")
    gptq = tiny.pop("quantization_config")
    write("config", "nine-b", compact(nine_b))
    write("config", "tiny", compact({**tiny, "quantization_config": gptq}))
    write("config", "quantize-beside", compact(tiny) + b"\0" + compact({**gptq, "checkpoint_format": "gptq_v2"}))
    layerwise = {**nine_b, "lightning_layerwise_decay": True, "lightning_nh": 14, "lightning_nkv": 7}
    write("config", "layerwise-14-heads", compact(layerwise))
    write("config", "wrong-mixer", compact({**nine_b, "mixer_types": ["mamba"] * 4}))
    write("config", "huge", compact({**nine_b, "hidden_size": 2**64 - 1}))
    write("config", "twice", b'{"hidden_size":1,"hidden_size":2}')
    write("config", "deep", b"[" * 100)
    write("config", "not-utf8", b'{"model_type":"\xff"}')
    write("config", "empty", b"")


def image(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else compact(header)
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def make_safetensors():
    def tensor(dtype, shape, begin, end):
        return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}

    two = {"__metadata__": {"format": "pt"}, "a": tensor("F32", [2, 3], 0, 24), "b": tensor("I8", [5], 24, 29)}
    write("safetensors", "two", image(two, bytes(29)))
    write("safetensors", "padded", image(compact(two) + b"   ", bytes(29)))
    write("safetensors", "scalar", image({"s": tensor("F64", [], 0, 8)}, bytes(8)))
    write("safetensors", "empty-tensor", image({"e": tensor("BF16", [0, 7], 0, 0)}))
    write("safetensors", "no-tensors", image({}))
    write("safetensors", "overlap", image({"a": tensor("U8", [4], 0, 4), "b": tensor("U8", [4], 2, 6)}, bytes(6)))
    write("safetensors", "hole", image({"a": tensor("U8", [4], 0, 4), "b": tensor("U8", [4], 5, 9)}, bytes(9)))
    write("safetensors", "wraps", image({"a": tensor("U8", [2**16] * 4, 0, 0)}))
    write("safetensors", "long-header", image({}, length=2**64 - 1))
    write("safetensors", "cut", image(two, bytes(20)))
    write("safetensors", "twice", image(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{}}', b"1"))
    write("safetensors", "short", b"\1\2\3")


def make_gptq():
    def layer(settings, groups, g_idx, dtype="F16", scale=b"\0\x3c", **shapes):
        size = 32 << settings % 3
        n_in = size * groups
        parts = {
            "qweight": ("I32", [n_in // 8, 8], struct.pack("<I", 0x89ABCDEF) * n_in),
            "qzeros": ("I32", [groups, 1], struct.pack("<I", 0x76543210) * groups),
            "scales": (dtype, [groups, 8], scale * (8 * groups)),
        }
        if g_idx is not None:
            parts["g_idx"] = ("I32", [n_in], struct.pack(f"<{n_in}i", *g_idx))
        header, data = {}, b""
        for name, (kind, shape, content) in parts.items():
            header[name] = {"dtype": kind, "shape": shapes.get(name, shape), "data_offsets": [len(data), len(data) + len(content)]}
            data += content
        return bytes([settings]) + image(header, data)

    write("gptq", "no-groups", layer(0, 2, None))
    write("gptq", "v2-128", layer(5, 1, [0] * 128, dtype="F32", scale=struct.pack("<f", 0.5)))
    write("gptq", "act-order", layer(0, 2, [i % 2 for i in range(64)]))
    write("gptq", "unequal", layer(6, 2, [0] * 10 + [1] * 54))
    write("gptq", "group-outside", layer(0, 2, [2] * 64))
    write("gptq", "group-negative", layer(0, 2, [-1] * 64))
    write("gptq", "not-finite", layer(0, 1, None, scale=b"\0\x7c"))
    write("gptq", "other-shape", layer(0, 2, None, qzeros=[1, 2]))
    write("gptq", "other-group-size", b"\1" + layer(0, 3, None)[1:])


if __name__ == "__main__":
    make_configs()
    make_safetensors()
    make_gptq()
