"""The worker that runs on a device: it loads networks and times them.

It needs Python 3.9 or later, the standard library and one inference runtime. Nothing here imports the rest of latlab,
because the controller ships this package alone to the device, as one file
(`latlab.harness.transports.worker_archive`).
"""
