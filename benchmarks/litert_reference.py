"""Figure 3: latlab's TFLite writer against litert-torch, Google's converter, on random architectures of each space.

For each architecture it compares the outputs of both files (and of eager PyTorch), the share of each graph that XNNPACK
runs, and the ratio of their latencies (1 thread, pooled medians of alternating rounds). It needs
`pip install latlab[litert]`:

    python benchmarks/litert_reference.py --per-space 20
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, save, show
from torch import nn

from latlab import search_spaces
from latlab.agents import runtimes
from latlab.agents.runtimes import Session
from latlab.harness.exporters import get_exporter
from latlab.harness.exporters.parity import TOLERANCE, parity_images

ROUND_S = 0.02
"""A round is as many inferences of one file as fit in this time, at least `MIN_RUNS`; then it is the other's turn."""
MIN_RUNS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--per-space", type=int, default=20, metavar="N", help="architectures of each space")
    parser.add_argument(
        "--spaces",
        nargs="+",
        default=[name for name in search_spaces.names(buildable=True) if not search_spaces.get(name).autoregressive],
        metavar="SPACE",
    )
    parser.add_argument("--rounds", type=int, default=20, help="alternating rounds per architecture")
    parser.add_argument("--seed", type=int, default=0, help="of the architectures")
    parser.add_argument("--as-written", action="store_true", help="published forms, dead edges kept")
    parser.add_argument(
        "--out", type=Path, default=RESULTS / "litert_reference.json", help="JSON of every architecture"
    )
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    networks = []
    for name in arguments.spaces:
        space = search_spaces.get(name)
        for arch in space.sample(arguments.per_space, arguments.seed):
            module = space.build(arch, as_written=arguments.as_written)
            row = {"space": name, "arch": arch.text}
            row |= compare(module, (1, *space.input_shape(arch)), arguments.rounds)
            networks.append(row)
            print(f"{name:22s} ratio {row['latency_ratio']:.3f}  {arch.text}", file=sys.stderr, flush=True)
        # Kept after each space: all of it takes half an hour.
        done = [one for one in arguments.spaces if any(row["space"] == one for row in networks)]
        table = [summary(one, [row for row in networks if row["space"] == one]) for one in done]
        figures = {"litert_torch": version("litert-torch"), "rounds": arguments.rounds, "seed": arguments.seed}
        save(arguments.out, {**figures, "as_written": arguments.as_written, "spaces": table, "networks": networks})
    print_table(table)


def compare(module: nn.Module, shape: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """Compare both files of one network: outputs, delegation, operators, latency."""
    with tempfile.TemporaryDirectory() as folder:
        ours, reference = Path(folder) / "ours.tflite", Path(folder) / "reference.tflite"
        ours_s = _cpu_seconds(lambda: get_exporter("tflite").export(module, torch.zeros(*shape), ours))
        reference_s = _cpu_seconds(lambda: convert(module, shape, reference))
        images = parity_images(shape)
        with torch.inference_mode():
            eager = module(images).numpy()
        change = float(np.ptp(eager, axis=0).max())
        with runtimes.open("tflite", ours) as a, runtimes.open("tflite", reference) as b:
            outputs = {name: _outputs(session, images) for name, session in (("ours", a), ("reference", b))}
            latency = alternate({"ours": a, "reference": b}, rounds)
            return {
                "max_difference": float(np.abs(outputs["ours"] - outputs["reference"]).max()),
                "output_change": change,
                "same_outputs": bool(
                    np.abs(outputs["ours"] - outputs["reference"]).max()
                    <= TOLERANCE * (change or float(np.abs(eager).max()))
                ),
                "latency_ms": latency,
                "latency_ratio": latency["ours"] / latency["reference"],
                "convert_cpu_s": {"ours": ours_s, "reference": reference_s},
                "delegation": {"ours": _delegation(a), "reference": _delegation(b)},
                "operators": {"ours": _operators(a), "reference": _operators(b)},
            }


def convert(module: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    """Convert with Google's converter, with NHWC input as in our files, so that both take the same arrays."""
    import litert_torch

    n, c, h, w = shape
    with quiet():
        wrapped = litert_torch.to_channel_last_io(module, args=[0]).eval()
        litert_torch.convert(wrapped, (torch.zeros(n, h, w, c),)).export(str(path))


def alternate(sessions: dict[str, Session], rounds: int) -> dict[str, float]:
    """Return the median latency of each file in ms over alternating rounds; the one that begins changes every round."""
    samples: dict[str, list[int]] = {name: [] for name in sessions}
    for session in sessions.values():
        session.set_inputs(session.random_inputs(seed=0))
        for _ in range(MIN_RUNS):
            session.invoke()
    for index in range(rounds):
        for name in sorted(sessions, reverse=bool(index % 2)):
            with sessions[name].running() as invoke:
                invoke()  # the other network has emptied the caches
                begin = time.perf_counter_ns()
                taken = 0
                while taken < MIN_RUNS or time.perf_counter_ns() - begin < ROUND_S * 1e9:
                    start = time.perf_counter_ns()
                    invoke()
                    samples[name].append(time.perf_counter_ns() - start)
                    taken += 1
    return {name: statistics.median(values) / 1e6 for name, values in samples.items()}


def _outputs(session: Session, images: torch.Tensor) -> np.ndarray:
    rows = []
    for image in images.permute(0, 2, 3, 1).contiguous().numpy():
        session.set_inputs([image[None]])
        session.invoke()
        rows.append(session.outputs()[0][0])
    return np.stack(rows)


def _delegation(session: Session) -> dict[str, float]:
    found = session.delegation
    assert found is not None
    share = found.delegated / found.operators
    return {"operators": found.operators, "delegated_share": share, "partitions": found.partitions}


def _operators(session: Any) -> dict[str, int]:
    """Return the number of operators of each kind in the file, without the delegate's own node."""
    names = [node["op_name"] for node in session._interpreter._get_ops_details()]
    return {name: names.count(name) for name in sorted(set(names)) if name != "DELEGATE"}


def _cpu_seconds(action: Any) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the converter, which reports its progress on stdout and stderr."""
    logging.disable(logging.WARNING)
    saved = [os.dup(stream) for stream in (1, 2)]
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        sys.stdout.flush()
        for stream in (1, 2):
            os.dup2(sink, stream)
        yield
    finally:
        sys.stdout.flush()
        for stream, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, stream)
            os.close(copy)
        os.close(sink)
        logging.disable(logging.NOTSET)


def summary(space: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    ratios = sorted(row["latency_ratio"] for row in rows)
    delegations = [(row["delegation"]["ours"], row["delegation"]["reference"]) for row in rows]
    return {
        "space": space,
        "networks": len(rows),
        "same_outputs": sum(row["same_outputs"] for row in rows),
        "one_partition_ours": sum(ours["partitions"] == 1 for ours, _ in delegations),
        "one_partition_reference": sum(reference["partitions"] == 1 for _, reference in delegations),
        "delegated_share_ours": statistics.mean(ours["delegated_share"] for ours, _ in delegations),
        "delegated_share_reference": statistics.mean(reference["delegated_share"] for _, reference in delegations),
        "ratio_median": statistics.median(ratios),
        "ratio_min": ratios[0],
        "ratio_max": ratios[-1],
        "convert_cpu_s_ours": statistics.mean(row["convert_cpu_s"]["ours"] for row in rows),
        "convert_cpu_s_reference": statistics.mean(row["convert_cpu_s"]["reference"] for row in rows),
    }


def print_table(table: list[dict[str, Any]]) -> None:
    rows = [
        {
            "space": row["space"],
            "networks": row["networks"],
            "same outputs": row["same_outputs"],
            "one partition": f"{row['one_partition_ours']} ({row['one_partition_reference']})",
            "delegated": f"{row['delegated_share_ours']:.0%} ({row['delegated_share_reference']:.0%})",
            "latency ratio": f"{row['ratio_median']:.3f} ({row['ratio_min']:.3f}-{row['ratio_max']:.3f})",
            "CPU s to convert": f"{row['convert_cpu_s_ours']:.2f} ({row['convert_cpu_s_reference']:.1f})",
        }
        for row in table
    ]
    show("latlab's TFLite writer; in brackets litert-torch, and for the ratio latlab / litert-torch its range", rows)


if __name__ == "__main__":
    main()
