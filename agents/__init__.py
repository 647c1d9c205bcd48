"""What runs on a device: a worker that loads networks and times them.

Only the standard library and one inference runtime are needed, on Python 3.9 or later. Nothing here imports
the rest of latlab; the controller ships this package to the device as one file
(`latlab.harness.transports.worker_archive`).
"""
