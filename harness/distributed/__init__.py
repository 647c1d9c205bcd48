"""Work in many processes: those of this machine, or those of a Ray cluster."""
