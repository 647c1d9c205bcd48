"""Files taken apart into their layers, so that each layer of an fp16, bf16 or int8 file is compared by itself.

`comparison.py` compares; `tflite.py`, `onnx.py` and `torchscript.py` cut the files of a format into parts, as `base.py`
demands.
"""
