"""The worker process of `ExportPool`: one request per line on stdin, one answer per line on stdout.

It ends when stdin ends, so it outlives its pool by one export at most. `end_with_parent` ends it even when stopped.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

from latlab.harness.distributed.parent_death import end_with_parent
from latlab.harness.exporters.base import CacheError, ExportError, ExportRequest
from latlab.harness.exporters.cache import ArtifactCache

NICENESS = 10
"""Priority of exports on this machine: lower than that of everything that runs with the usual 0."""


def main() -> None:
    """Serve requests until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("max_bytes", type=int)
    parser.add_argument("cpus", type=int, nargs="*")
    arguments = parser.parse_args()
    # What native libraries print must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    end_with_parent()
    os.nice(NICENESS)
    if arguments.cpus:
        os.sched_setaffinity(0, arguments.cpus)

    import torch

    torch.set_num_threads(1)
    gc.freeze()  # torch's import leaves many objects that stay; collecting need not look at them each time
    cache: ArtifactCache | None = None
    for line in sys.stdin:
        try:
            cache = cache or ArtifactCache(arguments.folder, arguments.max_bytes)
            answer = _answer(cache, ExportRequest(**json.loads(line)))
        except CacheError as error:
            answer = {"cache_error": str(error)}
        answers.write(json.dumps(answer) + "\n")


def _answer(cache: ArtifactCache, request: ExportRequest) -> dict[str, Any]:
    try:
        return {"artifact": cache.ensure(request).to_json()}
    except ExportError as error:
        return {"error": {"kind": error.kind, "message": str(error)}}
    except CacheError:
        raise
    except Exception as error:
        return {"error": {"kind": "crash", "message": f"{type(error).__name__}: {error}"}}


if __name__ == "__main__":
    main()
