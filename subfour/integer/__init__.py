"""The deployed network: folded, in integer codes, the same for every executor and exporter."""
