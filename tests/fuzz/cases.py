"""The list of fuzzers, each with its share of the cases."""

from __future__ import annotations

from fuzz.conversations import CONVERSATION_REGRESSIONS, PLANS, check_conversation, finish_conversations
from fuzz.core import Fuzzer
from fuzz.inventories import INVENTORIES, REGRESSIONS, check_inventory
from fuzz.outputs import (
    BENCHMARKS,
    KNOWN_HOSTS,
    KNOWN_HOSTS_REGRESSIONS,
    PACKETS,
    PHONE_FILES,
    check_benchmark,
    check_known_hosts,
    check_packets,
    check_phone_files,
)
from fuzz.replies import REPLIES, REPLY_REGRESSIONS, check_spoiled_reply

__all__ = ["FUZZERS", "cases_of"]

FUZZERS = (
    Fuzzer("inventory files", INVENTORIES, check_inventory, 0.25, REGRESSIONS),
    Fuzzer(
        "conversations with a worker", PLANS, check_conversation, 0.2, CONVERSATION_REGRESSIONS, finish_conversations
    ),
    Fuzzer("single replies", REPLIES, check_spoiled_reply, 0.3, REPLY_REGRESSIONS),
    Fuzzer("benchmark_model outputs", BENCHMARKS, check_benchmark, 0.15),
    Fuzzer("adb shell packets", PACKETS, check_packets, 0.04),
    Fuzzer("a phone's files", PHONE_FILES, check_phone_files, 0.03),
    Fuzzer("known_hosts files", KNOWN_HOSTS, check_known_hosts, 0.03, KNOWN_HOSTS_REGRESSIONS),
)


def cases_of(fuzzer: Fuzzer, total: int) -> int:
    """Return how many of `total` cases a fuzzer gets."""
    return round(total * fuzzer.share)
