"""Many devices at once: jobs, threads and retries."""
