"""Many devices at once: campaigns, jobs, a thread for each device, and retries."""
