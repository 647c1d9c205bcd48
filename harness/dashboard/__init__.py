"""The live page: a server that reads a store while others write it, and shows it in a browser. It never writes."""
