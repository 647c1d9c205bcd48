"""Names that the tests of simulated devices share."""

from __future__ import annotations

from collections.abc import Callable

from latlab.harness.transports.simulated.transport import SimulatedTransport

Connect = Callable[..., SimulatedTransport]
NETWORK = "nasbench201/|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|skip_connect~2|"
S = 5.0
